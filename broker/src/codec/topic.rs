//! Topic names and topic filters (MQTT 5.0 §4.7): parsed once, then trusted.

use bytestring::ByteString;

/// A checked topic filter: 1 to 65,535 bytes of UTF-8 without U+0000, wildcards only where they may stand
/// (MQTT 5.0 §4.7). May begin with `$share/{name}/` (§4.8.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter(ByteString);

/// Why a text is neither topic name nor topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Empty [MQTT-4.7.3-1].
    #[error("empty topic")]
    Empty,
    /// More than 65,535 bytes [MQTT-4.7.3-3].
    #[error("topic of {0} bytes")]
    TooLong(usize),
    /// Contains U+0000 [MQTT-4.7.3-2].
    #[error("topic contains U+0000")]
    Null,
    /// A wildcard where none may stand [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-3.3.2-2].
    #[error("misplaced wildcard")]
    Wildcard,
    /// `$share/` without a valid share name and filter [MQTT-4.8.2-1], [MQTT-4.8.2-2].
    #[error("malformed shared subscription")]
    Share,
}

impl TopicFilter {
    /// Checks a filter.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: ByteString) -> Result<Self, TopicError> {
        check_length(&text)?;
        let filter = match text.strip_prefix("$share/") {
            Some(shared) => {
                let (name, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
                if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
                    return Err(TopicError::Share);
                }
                filter
            }
            None => &*text,
        };
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = level == "+" || (level == "#" && levels.peek().is_none());
            if !alone && level.contains(['+', '#']) {
                return Err(TopicError::Wildcard);
            }
        }
        Ok(Self(text))
    }

    /// The whole text, `$share/{name}/` included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Share name and filter of a shared subscription; `None` and the filter otherwise.
    pub fn split_share(&self) -> (Option<&str>, &str) {
        match self
            .0
            .strip_prefix("$share/")
            .and_then(|shared| shared.split_once('/'))
        {
            Some((name, filter)) => (Some(name), filter),
            None => (None, &self.0),
        }
    }
}

/// Checks a topic name: 1 to 65,535 bytes, no U+0000, no wildcard.
///
/// # Errors
/// The rule that it breaks.
pub fn check_topic_name(text: &str) -> Result<(), TopicError> {
    check_length(text)?;
    if text.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong(text.len()));
    }
    if text.contains('\0') {
        return Err(TopicError::Null);
    }
    Ok(())
}
