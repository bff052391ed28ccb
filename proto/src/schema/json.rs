//! How the few fields that JSON writes in its own way are written.

use serde::{Deserialize, Serialize};

use super::History;

/// `"all"`, `"joined"`, or `{"last":100}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum HistoryJson {
    Word(String),
    Last { last: u32 },
}

const LAST: &str = "last";

impl From<HistoryJson> for History {
    fn from(json: HistoryJson) -> Self {
        match json {
            HistoryJson::Word(seen) => Self { seen, last: 0 },
            HistoryJson::Last { last } => Self {
                seen: LAST.to_owned(),
                last,
            },
        }
    }
}

impl From<History> for HistoryJson {
    fn from(history: History) -> Self {
        if history.seen == LAST {
            Self::Last { last: history.last }
        } else {
            Self::Word(history.seen)
        }
    }
}

/// Bytes as base64 (RFC 4648 §4).
pub(super) mod base64 {
    use bytes::Bytes;
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub(in crate::schema) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(in crate::schema) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes());
        bytes
            .map(Bytes::from)
            .map_err(|_| serde::de::Error::custom("not base64"))
    }
}
