//! What a URL means.
