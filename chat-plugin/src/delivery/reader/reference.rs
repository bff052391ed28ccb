//! What a delivery is called while it is with the broker: 32 opaque bytes there, an entry or a piece of state here.

use broker::hooks::DeliveryRef;
use proto::ids::{ConversationId, ConversationKind, Seq};

/// The plugin's meaning of a [`DeliveryRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// An entry in a form (slot 0 to 2), or of a `…/log` (slot 128 and above).
    Entry {
        slot: u8,
        conversation: ConversationId,
        seq: Seq,
        /// Of a `…/log`: which subscription; otherwise 0.
        generation: u32,
    },
    /// A reply or a receipt, handed out at this time (ms since 1970): nothing to settle.
    State { ts_ms: u64 },
    /// Changes of the own list of conversations: who has them knows everything up to this account version.
    Account { version: u64 },
    /// What is at this place of the queue of the device.
    Event { dseq: u64 },
}

impl Reference {
    /// A reply or receipt that is handed out now.
    pub(super) fn now() -> Self {
        Self::State {
            ts_ms: crate::clock::now_ms(),
        }
    }

    /// Byte 0: 1 for an entry, 0 for state (1 to 8: when), 2 for account changes (1 to 8: version), 3 for an
    /// event of the device (1 to 8: place). Entry: 1: slot; 2: kind; 3 to 18: conversation; 19 to 26:
    /// seq; 27 to 30: generation.
    pub(crate) fn encode(self) -> DeliveryRef {
        let mut bytes = [0; 32];
        match self {
            Self::Entry {
                slot,
                conversation,
                seq,
                generation,
            } => {
                let head = [1, slot, conversation.kind().to_byte()];
                let tail = seq.get().to_be_bytes();
                let all = head.into_iter().chain(*conversation.as_bytes()).chain(tail);
                fill(&mut bytes, all.chain(generation.to_be_bytes()));
            }
            Self::State { ts_ms } => {
                fill(&mut bytes, std::iter::once(0).chain(ts_ms.to_be_bytes()));
            }
            Self::Account { version } => {
                fill(&mut bytes, std::iter::once(2).chain(version.to_be_bytes()));
            }
            Self::Event { dseq } => {
                fill(&mut bytes, std::iter::once(3).chain(dseq.to_be_bytes()));
            }
        }
        DeliveryRef(bytes)
    }

    pub(crate) fn decode(reference: &DeliveryRef) -> Option<Self> {
        let (tag, rest) = reference.0.split_first()?;
        if *tag != 1 {
            let (number, _) = rest.split_first_chunk::<8>()?;
            let number = u64::from_be_bytes(*number);
            return Some(match tag {
                0 => Self::State { ts_ms: number },
                3 => Self::Event { dseq: number },
                _ => Self::Account { version: number },
            });
        }
        let ([slot, kind], rest) = rest.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (generation, _) = rest.split_first_chunk::<4>()?;
        Some(Self::Entry {
            slot: *slot,
            conversation: ConversationId::from_parts(ConversationKind::from_byte(*kind)?, *id),
            seq: Seq::new(u64::from_be_bytes(*seq)),
            generation: u32::from_be_bytes(*generation),
        })
    }
}

fn fill(bytes: &mut [u8; 32], from: impl Iterator<Item = u8>) {
    for (to, from) in bytes.iter_mut().zip(from) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_survives_its_bytes() {
        let conversation = ConversationId::from_parts(ConversationKind::Channel, [9; 16]);
        let entry = Reference::Entry {
            slot: 130,
            conversation,
            seq: Seq::new(u64::MAX - 1),
            generation: 0x0102_0304,
        };
        let state = Reference::State { ts_ms: 7 };
        let account = Reference::Account { version: 9 };
        for reference in [entry, state, account, Reference::Event { dseq: 8 }] {
            assert_eq!(Reference::decode(&reference.encode()), Some(reference));
        }
    }
}
