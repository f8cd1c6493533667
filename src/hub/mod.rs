//! Subscriptions, interest and fan-out lists.
