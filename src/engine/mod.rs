//! Numbers publications and keeps them.
