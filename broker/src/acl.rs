//! Who may publish and subscribe to what, outside the plugin's root: the broker's own rules, then the plugin's.

use crate::hooks::{Access, ClientInfo, Hooks};
use crate::sys;

/// Is the first level of this topic name or filter `root`?
pub(crate) fn is_below(root: &str, topic: &str) -> bool {
    topic
        .strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// May the client do this with an ordinary topic name or filter? Only the server publishes to `$SYS`.
pub(crate) fn is_allowed(
    hooks: &dyn Hooks,
    client: &ClientInfo,
    access: Access,
    topic: &str,
) -> bool {
    if access == Access::Publish && is_below(sys::ROOT, topic) {
        return false;
    }
    hooks.authorize(client, access, topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_whole_level() {
        assert!(is_below("chat", "chat"));
        assert!(is_below("chat", "chat/a"));
        assert!(!is_below("chat", "chatter/a"));
        assert!(!is_below("chat", "/chat"));
        assert!(!is_below("chat", "+/a"));
    }
}
