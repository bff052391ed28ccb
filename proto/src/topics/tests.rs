use proptest::prelude::*;

use super::*;
use crate::ids::ConversationKind;

const CID: &str = "g.01arz3ndektsv4rrffq69g5fav";

fn conversation() -> impl Strategy<Value = ConversationId> {
    let kind = prop_oneof![
        Just(ConversationKind::Direct),
        Just(ConversationKind::Group),
        Just(ConversationKind::Channel),
        Just(ConversationKind::Broadcast),
        Just(ConversationKind::Support),
    ];
    (kind, any::<[u8; 16]>()).prop_map(|(kind, bytes)| ConversationId::from_parts(kind, bytes))
}

fn message_id() -> impl Strategy<Value = MessageId> {
    proptest::collection::vec(proptest::sample::select(b"azAZ09._~:-".to_vec()), 1..=64)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap())
}

fn handle() -> impl Strategy<Value = Handle> {
    proptest::collection::vec(proptest::sample::select(b"az09._-".to_vec()), 1..=50)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap())
}

fn user_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        handle().prop_map(Target::Handle),
        any::<[u8; 16]>().prop_map(|bytes| Target::User(UserId::from_bytes(bytes))),
        Just(Target::Me),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![user_target(), conversation().prop_map(Target::Conversation)]
}

fn publish_topic() -> impl Strategy<Value = PublishTopic<'static>> {
    let request = || proptest::option::of(message_id().prop_map(RequestId));
    prop_oneof![
        (target(), proptest::option::of(message_id()))
            .prop_map(|(target, mid)| PublishTopic::To { target, mid }),
        (
            conversation(),
            any::<u64>(),
            proptest::sample::select(MessageAction::ALL.to_vec())
        )
            .prop_map(|(cid, seq, action)| PublishTopic::Message {
                cid,
                seq: Seq::new(seq),
                action
            }),
        conversation().prop_map(|cid| PublishTopic::Read { cid }),
        conversation().prop_map(|cid| PublishTopic::Unread { cid }),
        conversation().prop_map(|cid| PublishTopic::Recv { cid }),
        conversation().prop_map(|cid| PublishTopic::Typing { cid }),
        Just(PublishTopic::Presence),
        request().prop_map(|req| PublishTopic::Rpc {
            method: "conv.create",
            req
        }),
    ]
}

fn filter_topic() -> impl Strategy<Value = FilterTopic> {
    let scope = || prop_oneof![Just(Scope::All), conversation().prop_map(Scope::One)];
    let form = proptest::sample::select(vec![Form::In, Form::Txt, Form::Pb]);
    let start = prop_oneof![
        Just(LogStart::Live),
        any::<u64>().prop_map(|seq| LogStart::From(Seq::new(seq))),
        any::<u32>().prop_map(LogStart::Last),
    ];
    let key = prop_oneof![
        message_id().prop_map(ErrorKey::Mid),
        any::<u16>().prop_map(ErrorKey::Packet)
    ];
    prop_oneof![
        (form, scope()).prop_map(|(form, scope)| FilterTopic::Inbox { form, scope }),
        scope().prop_map(FilterTopic::Receipts),
        Just(FilterTopic::Account),
        scope().prop_map(FilterTopic::Typing),
        Just(FilterTopic::Device),
        Just(FilterTopic::Rpc(Names::All)),
        message_id().prop_map(|id| FilterTopic::Rpc(Names::One(RequestId(id)))),
        Just(FilterTopic::Errors(Names::All)),
        key.prop_map(|key| FilterTopic::Errors(Names::One(key))),
        (conversation(), start).prop_map(|(cid, start)| FilterTopic::Log { cid, start }),
        user_target().prop_map(FilterTopic::Presence),
    ]
}

/// Texts that come close to topics.
fn near_topic() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        proptest::sample::select(vec![
            "chat",
            "to",
            "c",
            "me",
            "u",
            "m",
            "in",
            "txt",
            "pb",
            "rcpt",
            "ev",
            "account",
            "typing",
            "dev",
            "rpc",
            "err",
            "log",
            "from",
            "last",
            "read",
            "recv",
            "unread",
            "presence",
            "reply",
            "+",
            "#",
            "@bob",
            "@",
            "u.",
            "0",
            "01",
            "7",
            "",
            CID,
            "u.01arz3ndektsv4rrffq69g5fav",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    proptest::collection::vec(level, 0..7).prop_map(|levels| format!("chat/{}", levels.join("/")))
}

proptest! {
    #[test]
    fn publish_topic_survives_its_text(topic in publish_topic()) {
        let text = topic.to_string();
        prop_assert_eq!(PublishTopic::parse(&text), Ok(topic));
    }

    #[test]
    fn filter_survives_its_text(filter in filter_topic()) {
        prop_assert_eq!(FilterTopic::parse(&filter.to_string()), Ok(filter));
    }

    #[test]
    fn accepted_text_is_the_only_text(text in near_topic()) {
        if let Ok(topic) = PublishTopic::parse(&text) {
            prop_assert_eq!(topic.to_string(), text.clone());
        }
        if let Ok(filter) = FilterTopic::parse(&text) {
            prop_assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = PublishTopic::parse(&text);
        let _ = FilterTopic::parse(&text);
        let _ = text.parse::<Target>();
    }
}

#[test]
fn filters_outside_the_table_are_refused() {
    for filter in [
        "chat/#",
        "chat/+",
        "chat/me/#",
        "chat/me/+",
        "chat/me/+/+",
        "chat/me/in",
        "chat/me/in/#",
        "chat/me/in/+/+",
        "chat/me/in/@bob",
        "chat/me/ev/+",
        "chat/me/ev/typing",
        "chat/me/dev/1",
        "chat/me/err",
        "chat/me/err/a b",
        "chat/me/err/@65536",
        "chat/me/rpc/",
        "chat/c/+/log",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/#",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/+",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/log/#",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/log/from",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/log/from/+",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/log/from/01",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/log/last/4294967296",
        "chat/c/g.01arz3ndektsv4rrffq69g5fav/read",
        "chat/u/+/presence",
        "chat/u/g.01arz3ndektsv4rrffq69g5fav/presence",
        "chat/to/me",
        "chat",
        "chat/",
        "other/me/in/+",
    ] {
        assert!(FilterTopic::parse(filter).is_err(), "{filter}");
    }
}

#[test]
fn publishes_outside_the_table_are_refused() {
    for (topic, error) in [
        (
            "chat/me/in/g.01arz3ndektsv4rrffq69g5fav",
            TopicError::Unknown,
        ),
        ("chat/me/txt/x", TopicError::Unknown),
        ("chat/to", TopicError::Unknown),
        ("chat/to/", TopicError::Target),
        ("chat/to/@Bob", TopicError::Target),
        ("chat/to/@bob/", TopicError::MessageId),
        ("chat/to/@bob/a b", TopicError::MessageId),
        ("chat/to/@bob/a/b", TopicError::Unknown),
        ("chat/c/x/read", TopicError::Conversation),
        ("chat/c/g.01arz3ndektsv4rrffq69g5fav", TopicError::Unknown),
        (
            "chat/c/g.01arz3ndektsv4rrffq69g5fav/m/1",
            TopicError::Unknown,
        ),
        (
            "chat/c/g.01arz3ndektsv4rrffq69g5fav/m/x/edit",
            TopicError::Number,
        ),
        ("chat/rpc", TopicError::Unknown),
        ("chat/rpc/", TopicError::Unknown),
        ("chat/rpc/me.get/", TopicError::RequestId),
        ("chat/presence", TopicError::Unknown),
    ] {
        assert_eq!(PublishTopic::parse(topic), Err(error), "{topic}");
    }
}

#[test]
fn reply_topic_gives_its_request_back() {
    let req: RequestId = "42".parse().unwrap();
    assert_eq!(parse_rpc_reply_topic(&rpc_reply_topic(&req)), Some(req));
    assert_eq!(parse_rpc_reply_topic("chat/me/rpc/a/b"), None);
    assert_eq!(parse_rpc_reply_topic("replies/42"), None);
}
