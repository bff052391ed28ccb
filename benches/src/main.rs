//! `mqchat-bench`: load generator and no-loss checker.
fn main() {}
