//! An MQTT client without comfort: what it sends and what comes is for the story to see.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use broker::codec::decode::Decoder;
use broker::codec::encode::encode;
use broker::codec::packet::{
    Ack, Connect, Disconnect, Packet, PacketId, Publish, Qos, RetainHandling, Subscribe,
    SubscribeFilter, Unsubscribe, Version, Will,
};
use broker::codec::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, WillProperties,
};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::deadline::{PATIENCE, Stopwatch};
use super::scram::Scram;

/// Who connects, and how.
#[derive(Clone)]
pub(crate) struct Login {
    user: String,
    password: String,
    client_id: String,
    version: Version,
    session: Option<u32>,
    receive_maximum: Option<u16>,
    maximum_packet_size: Option<u32>,
    will: Option<Will>,
    scram: bool,
    property: Option<(String, String)>,
}

impl Login {
    /// MQTT 5, a guest with a client id of its own, the password that `--dev` learned or learns.
    pub(crate) fn new(user: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Self {
            user: user.to_owned(),
            password: format!("{user}-secret"),
            client_id: format!("{user}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            version: Version::V5,
            session: None,
            receive_maximum: None,
            maximum_packet_size: None,
            will: None,
            scram: false,
            property: None,
        }
    }

    /// Proves the password by SCRAM-SHA-256, 5.0, instead of sending it.
    pub(crate) fn scram(mut self) -> Self {
        self.scram = true;
        self
    }

    /// With this version of the protocol.
    pub(crate) fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// A device: a client id that stays, and a session that outlives the connection.
    pub(crate) fn device(mut self, client_id: &str) -> Self {
        client_id.clone_into(&mut self.client_id);
        self.session = Some(u32::MAX);
        self
    }

    /// A session that outlives the connection by so many seconds.
    pub(crate) fn session(mut self, seconds: u32) -> Self {
        self.session = Some(seconds);
        self
    }

    /// With a retained will, at QoS 1, after so many seconds.
    pub(crate) fn will(mut self, topic: &str, payload: &str, delay: u32) -> Self {
        self.will = Some(Will {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: WillProperties {
                will_delay_interval: Some(delay),
                ..WillProperties::default()
            },
        });
        self
    }

    /// With this user property of CONNECT, 5.0.
    pub(crate) fn property(mut self, name: &str, value: &str) -> Self {
        self.property = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// With this client id.
    pub(crate) fn client_id(mut self, client_id: &str) -> Self {
        client_id.clone_into(&mut self.client_id);
        self
    }

    /// With this password or token.
    pub(crate) fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// With this Receive Maximum.
    pub(crate) fn receive_maximum(mut self, limit: u16) -> Self {
        self.receive_maximum = Some(limit);
        self
    }

    /// With this Maximum Packet Size.
    pub(crate) fn maximum_packet_size(mut self, bytes: u32) -> Self {
        self.maximum_packet_size = Some(bytes);
        self
    }

    /// Connects.
    ///
    /// # Panics
    /// If that is refused.
    pub(crate) fn connect(&self, address: SocketAddr) -> Client {
        self.try_connect(address)
            .unwrap_or_else(|lost| panic!("{} cannot connect: {lost:?}", self.user))
    }

    /// Connects; a refusal is [`Lost::Refused`].
    pub(crate) fn try_connect(&self, address: SocketAddr) -> Result<Client, Lost> {
        let mut client = self.open(address)?;
        let mut scram = Scram::new(&self.user, &self.password);
        let mut answer = client.read()?;
        if let Packet::Auth(challenge) = &answer {
            client.send(&scram.answer(challenge));
            answer = client.read()?;
        }
        match answer {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
                if self.scram {
                    scram.check(ack.properties.authentication_data.as_ref());
                }
                client.session_present = ack.session_present;
                Ok(client)
            }
            Packet::ConnAck(ack) => Err(Lost::Refused(ack.reason)),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Sends CONNECT; what comes back is for the story to read.
    pub(crate) fn open(&self, address: SocketAddr) -> Result<Client, Lost> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            decoder: Decoder::for_client(self.version, 1 << 28),
            input: BytesMut::new(),
            version: self.version,
            user: self.user.clone(),
            last_id: 0,
            last_request: 0,
            session_present: false,
            acks_by_itself: true,
            hears_replies: false,
            inbox: VecDeque::new(),
            set_aside: VecDeque::new(),
        };
        client.send(&self.packet());
        Ok(client)
    }

    /// The bytes of its CONNECT.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        encode(&self.packet(), self.version, &mut bytes);
        bytes.to_vec()
    }

    fn packet(&self) -> Packet {
        let mut properties = ConnectProperties::default();
        if self.version == Version::V5 {
            properties.session_expiry_interval = self.session;
            properties.receive_maximum = self.receive_maximum;
            properties.maximum_packet_size = self.maximum_packet_size;
            let named = self.property.iter();
            let pair =
                |(name, value): &(String, String)| (name.as_str().into(), value.as_str().into());
            properties.user_properties = named.map(pair).collect();
        }
        if self.scram {
            let first = Scram::new(&self.user, &self.password).first();
            properties.authentication_method = Some(Scram::METHOD.into());
            properties.authentication_data = Some(first);
        }
        Packet::Connect(Box::new(Connect {
            version: self.version,
            clean_start: self.session.is_none(),
            keep_alive: 0,
            client_id: self.client_id.as_str().into(),
            will: self.will.clone(),
            user_name: (!self.scram).then(|| self.user.as_str().into()),
            password: (!self.scram).then(|| Bytes::from(self.password.clone())),
            properties,
        }))
    }
}

/// Why a connection is no more.
#[derive(Debug)]
pub(crate) enum Lost {
    /// CONNACK refused it.
    Refused(ReasonCode),
    /// DISCONNECT of the server, 5.0.
    Disconnected(ReasonCode),
    /// Closed, reset, or never opened.
    #[expect(dead_code, reason = "read by whoever sees the failure of a story")]
    Closed(io::Error),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

/// What the server said to a publish.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// To which packet.
    pub(crate) packet_id: u16,
    /// In 3.1.1 always success.
    pub(crate) reason: ReasonCode,
    /// For people, 5.0.
    pub(crate) reason_string: Option<String>,
    properties: Vec<(String, String)>,
}

impl Answer {
    fn new(ack: Ack) -> Self {
        let properties = ack.properties.unwrap_or_default();
        Self {
            packet_id: ack.packet_id.get(),
            reason: ack.reason,
            reason_string: properties.reason_string.map(|text| text.to_string()),
            properties: properties
                .user_properties
                .into_iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        }
    }

    /// The value of a user property.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    /// The place at which it was stored.
    ///
    /// # Panics
    /// If it was not.
    pub(crate) fn seq(&self) -> u64 {
        assert_eq!(self.reason, ReasonCode::Success, "{self:?}");
        self.get("seq")
            .unwrap_or_else(|| panic!("no seq: {self:?}"))
            .parse()
            .unwrap()
    }

    /// Had it been stored before?
    pub(crate) fn is_duplicate(&self) -> bool {
        self.get("dup") == Some("1")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.reason_string.as_deref().unwrap_or_default();
        write!(f, "{:?} {:?} {text}", self.reason, self.properties)
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    version: Version,
    user: String,
    last_id: u16,
    last_request: u32,
    /// As CONNACK said.
    pub(crate) session_present: bool,
    /// Acks each QoS 1 message when it is read from the socket.
    pub(crate) acks_by_itself: bool,
    hears_replies: bool,
    inbox: VecDeque<Publish>,
    set_aside: VecDeque<Packet>,
}

impl Client {
    /// Proves a password once more, 5.0: the end of the dialogue, which the server has proved as well.
    pub(crate) fn authenticate_again(&mut self, user: &str, password: &str) -> Result<(), Lost> {
        let mut scram = Scram::new(user, password);
        self.send(&scram.again());
        let Packet::Auth(challenge) = self.read()? else {
            panic!("no AUTH");
        };
        self.send(&scram.answer(&challenge));
        match self.read()? {
            Packet::Auth(last) if last.reason == ReasonCode::Success => {
                scram.check(last.properties.authentication_data.as_ref());
                Ok(())
            }
            other => panic!("{other:?} instead of AUTH"),
        }
    }

    /// Publishes at QoS 1 and waits for the answer.
    pub(crate) fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Answer {
        self.publish_with(topic, payload, PublishProperties::default())
    }

    /// Publishes at QoS 1 with the user property `mid` and waits for the answer.
    pub(crate) fn publish_mid(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        mid: &str,
    ) -> Answer {
        self.publish_with(topic, payload, with_mid(mid))
    }

    /// Publishes at QoS 1 with these properties (5.0) and waits for the answer.
    pub(crate) fn publish_with(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        properties: PublishProperties,
    ) -> Answer {
        let id = self.send_publish(topic, payload, properties);
        let answer = self.next_answer().unwrap();
        assert_eq!(answer.packet_id, id, "acks come in the order of publishing");
        answer
    }

    /// Publishes at QoS 2 and goes through the whole exchange.
    pub(crate) fn publish_qos2(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Answer {
        let id = self.new_packet_id();
        self.send(&publish_packet(
            topic,
            payload,
            Qos::ExactlyOnce,
            Some(id),
            PublishProperties::default(),
        ));
        let answer = self.next_answer().unwrap();
        if !answer.reason.is_error() {
            self.send(&Packet::PubRel(Ack::success(id)));
            self.wait_for(|packet| matches!(packet, Packet::PubComp(ack) if ack.packet_id == id));
        }
        answer
    }

    /// Publishes a retained message at QoS 1 and waits for the answer.
    pub(crate) fn publish_retained(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Answer {
        self.send_retained(topic, payload);
        self.next_answer().unwrap()
    }

    /// Publishes a retained message at QoS 1, without waiting.
    pub(crate) fn send_retained(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let id = self.new_packet_id();
        let none = PublishProperties::default();
        let mut packet = publish_packet(topic, payload, Qos::AtLeastOnce, Some(id), none);
        if let Packet::Publish(publish) = &mut packet {
            publish.retain = true;
        }
        self.send(&packet);
    }

    /// Begins a QoS 2 exchange under this packet id, perhaps again, and stops after PUBREC.
    pub(crate) fn begin_qos2(
        &mut self,
        id: u16,
        dup: bool,
        topic: &str,
        payload: impl AsRef<[u8]>,
    ) -> Answer {
        let none = PublishProperties::default();
        let mut packet = publish_packet(topic, payload, Qos::ExactlyOnce, PacketId::new(id), none);
        if let Packet::Publish(publish) = &mut packet {
            publish.dup = dup;
        }
        self.send(&packet);
        self.next_answer().unwrap()
    }

    /// Begins a QoS 2 exchange, unless the connection ends.
    pub(crate) fn try_begin_qos2(&mut self, id: u16, topic: &str) -> Result<Answer, Lost> {
        let none = PublishProperties::default();
        let id = PacketId::new(id);
        self.send(&publish_packet(topic, "two", Qos::ExactlyOnce, id, none));
        self.next_answer()
    }

    /// Ends a QoS 2 exchange: PUBREL, PUBCOMP.
    pub(crate) fn end_qos2(&mut self, id: u16) {
        let id = PacketId::new(id).unwrap();
        self.send(&Packet::PubRel(Ack::success(id)));
        self.wait_for(|packet| matches!(packet, Packet::PubComp(ack) if ack.packet_id == id));
    }

    /// Publishes at QoS 0.
    pub(crate) fn publish_qos0(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let packet = publish_packet(
            topic,
            payload,
            Qos::AtMostOnce,
            None,
            PublishProperties::default(),
        );
        self.send(&packet);
    }

    /// Publishes and waits for the answer; at QoS 0 there is none.
    pub(crate) fn publish_at(
        &mut self,
        qos: Qos,
        topic: &str,
        payload: impl AsRef<[u8]>,
    ) -> Option<Answer> {
        match qos {
            Qos::AtMostOnce => {
                self.publish_qos0(topic, payload);
                None
            }
            Qos::AtLeastOnce => Some(self.publish(topic, payload)),
            Qos::ExactlyOnce => Some(self.publish_qos2(topic, payload)),
        }
    }

    /// Publishes at QoS 1 and waits for nothing.
    pub(crate) fn send_publish(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        properties: PublishProperties,
    ) -> u16 {
        let id = self.new_packet_id();
        self.send(&publish_packet(
            topic,
            payload,
            Qos::AtLeastOnce,
            Some(id),
            properties,
        ));
        id.get()
    }

    /// The next PUBACK or PUBREC.
    pub(crate) fn next_answer(&mut self) -> Result<Answer, Lost> {
        self.try_wait_for(|packet| matches!(packet, Packet::PubAck(_) | Packet::PubRec(_)))
            .map(|packet| match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) => Answer::new(ack),
                _ => unreachable!("only these were asked for"),
            })
    }

    /// Subscribes at QoS 1.
    ///
    /// # Panics
    /// If that is refused.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        let reason = self.try_subscribe(filter, Qos::AtLeastOnce);
        assert_eq!(reason, ReasonCode::GrantedQos1, "{filter}");
    }

    /// Subscribes and says what SUBACK said.
    pub(crate) fn try_subscribe(&mut self, filter: &str, qos: Qos) -> ReasonCode {
        self.subscribe_with(filter, qos, false)
    }

    /// Subscribes, perhaps with No Local, and says what SUBACK said.
    pub(crate) fn subscribe_with(&mut self, filter: &str, qos: Qos, no_local: bool) -> ReasonCode {
        self.subscribe_all(&[(filter, qos, no_local)])[0]
    }

    /// Subscribes to several filters by one packet.
    pub(crate) fn subscribe_all(&mut self, filters: &[(&str, Qos, bool)]) -> Vec<ReasonCode> {
        self.send_subscribe(filters, SubscribeProperties::default())
    }

    /// Subscribes at QoS 1 with a Subscription Identifier.
    pub(crate) fn subscribe_identified(&mut self, filter: &str, identifier: u32) {
        let properties = SubscribeProperties {
            subscription_identifier: Some(identifier),
            ..SubscribeProperties::default()
        };
        let reasons = self.send_subscribe(&[(filter, Qos::AtLeastOnce, false)], properties);
        assert_eq!(reasons, [ReasonCode::GrantedQos1], "{filter}");
    }

    /// Unsubscribes and waits for UNSUBACK.
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.new_packet_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            filters: vec![TopicFilter::parse(filter.into()).unwrap()],
        }));
        self.wait_for(
            |packet| matches!(packet, Packet::UnsubAck(ack) if ack.packet_id == packet_id),
        );
    }

    fn send_subscribe(
        &mut self,
        filters: &[(&str, Qos, bool)],
        properties: SubscribeProperties,
    ) -> Vec<ReasonCode> {
        let filters = filters
            .iter()
            .map(|(filter, qos, no_local)| SubscribeFilter {
                filter: TopicFilter::parse((*filter).into()).unwrap(),
                qos: *qos,
                no_local: *no_local,
                retain_as_published: false,
                retain_handling: RetainHandling::Always,
            });
        self.subscribe_as(filters.collect(), properties)
    }

    /// Subscribes exactly so, and says what SUBACK said.
    pub(crate) fn subscribe_as(
        &mut self,
        filters: Vec<SubscribeFilter>,
        properties: SubscribeProperties,
    ) -> Vec<ReasonCode> {
        let packet_id = self.new_packet_id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }));
        match self.wait_for(|packet| matches!(packet, Packet::SubAck(_))) {
            Packet::SubAck(ack) => {
                assert_eq!(ack.packet_id, packet_id);
                ack.reasons
            }
            _ => unreachable!("only this was asked for"),
        }
    }

    /// The next message, in the order of arrival.
    pub(crate) fn next_message(&mut self) -> Publish {
        self.try_next_message()
            .unwrap_or_else(|lost| panic!("{} is lost: {lost:?}", self.user))
    }

    /// The next message, unless the connection ends before.
    pub(crate) fn try_next_message(&mut self) -> Result<Publish, Lost> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            let packet = self.read()?;
            self.sort(packet);
        }
    }

    /// The next message as JSON.
    pub(crate) fn next_json(&mut self) -> Value {
        let message = self.next_message();
        serde_json::from_slice(&message.payload)
            .unwrap_or_else(|error| panic!("{error} in {message:?}"))
    }

    /// A message that had arrived before the last answer, without waiting.
    pub(crate) fn arrived(&mut self) -> Option<Publish> {
        self.inbox.pop_front()
    }

    /// The first message that had arrived before the last answer on a topic that begins so, without waiting.
    pub(crate) fn arrived_below(&mut self, prefix: &str) -> Option<Publish> {
        let mut inbox = self.inbox.iter();
        let at = inbox.position(|message| message.topic.starts_with(prefix))?;
        self.inbox.remove(at)
    }

    /// The next message on this topic; those before it stay for later.
    pub(crate) fn next_on(&mut self, topic: &str) -> Publish {
        let mut looked_at = 0;
        loop {
            if let Some(at) =
                (looked_at..self.inbox.len()).find(|at| *self.inbox[*at].topic == *topic)
            {
                return self.inbox.remove(at).unwrap();
            }
            looked_at = self.inbox.len();
            let packet = self
                .read()
                .unwrap_or_else(|lost| panic!("nothing on {topic}: {lost:?}"));
            self.sort(packet);
        }
    }

    /// Acks a message by hand.
    pub(crate) fn ack(&mut self, message: &Publish) {
        let id = message.packet_id.expect("a message at QoS 1");
        self.send(&Packet::PubAck(Ack::success(id)));
    }

    /// Calls a method; an error is its code.
    pub(crate) fn call(&mut self, method: &str, request: &Value) -> Result<Value, String> {
        self.try_call(method, request)
            .map_err(|error| code_of(&error))
    }

    /// Calls a method; an error is all that is told of it.
    pub(crate) fn try_call(&mut self, method: &str, request: &Value) -> Result<Value, Value> {
        if !self.hears_replies {
            self.subscribe("chat/me/rpc/+");
            self.hears_replies = true;
        }
        self.last_request += 1;
        let request_id = format!(
            "{}-{}",
            self.stream.local_addr().unwrap().port(),
            self.last_request
        );
        self.try_call_as(&request_id, method, request)
    }

    /// Calls a method with this request id; subscribe to the reply before.
    pub(crate) fn call_as(
        &mut self,
        request_id: &str,
        method: &str,
        request: &Value,
    ) -> Result<Value, String> {
        self.try_call_as(request_id, method, request)
            .map_err(|error| code_of(&error))
    }

    fn try_call_as(
        &mut self,
        request_id: &str,
        method: &str,
        request: &Value,
    ) -> Result<Value, Value> {
        let reply_topic = format!("chat/me/rpc/{request_id}");
        let answer = match self.version {
            Version::V311 => self.publish(
                &format!("chat/rpc/{method}/{request_id}"),
                request.to_string(),
            ),
            Version::V5 => {
                let properties = PublishProperties {
                    response_topic: Some(reply_topic.as_str().into()),
                    correlation_data: Some(Bytes::from_static(b"which one")),
                    ..PublishProperties::default()
                };
                self.publish_with(
                    &format!("chat/rpc/{method}"),
                    request.to_string(),
                    properties,
                )
            }
        };
        assert_eq!(answer.reason, ReasonCode::Success, "{method}: {answer:?}");
        let reply = self.next_on(&reply_topic);
        if self.version == Version::V5 {
            assert_eq!(
                reply.properties.correlation_data.as_deref(),
                Some(b"which one".as_slice())
            );
        }
        let mut reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        match reply.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => Err(reply["error"].take()),
        }
    }

    /// The whole log of a conversation by `msg.history`, oldest first.
    pub(crate) fn history(&mut self, cid: &str) -> Vec<Value> {
        let mut entries = Vec::new();
        loop {
            let place = |last: &Value| last["seq"].as_u64().or_else(|| last["gap"]["to"].as_u64());
            let after = entries.last().map_or(0, |last| place(last).unwrap());
            let request = serde_json::json!({"cid": cid, "after": after, "limit": 500});
            let mut page = self.call("msg.history", &request).unwrap();
            let more = page["more"].as_bool().unwrap();
            let page = page["entries"].take();
            let Value::Array(page) = page else {
                panic!("no entries: {page}")
            };
            assert!(!(more && page.is_empty()), "more of nothing");
            entries.extend(page);
            if !more {
                return entries;
            }
        }
    }

    /// Waits until the server has taken everything before, and forgets what is in the inbox.
    pub(crate) fn settle(&mut self) {
        self.arrivals();
    }

    /// Waits until the server has taken everything before, and takes what is in the inbox.
    pub(crate) fn arrivals(&mut self) -> Vec<Publish> {
        self.ping();
        self.inbox.drain(..).collect()
    }

    /// Waits until the server has taken everything before.
    pub(crate) fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.wait_for(|packet| matches!(packet, Packet::PingResp));
    }

    /// Waits for the end of the connection and says what it was.
    pub(crate) fn wait_for_end(&mut self) -> Lost {
        loop {
            match self.read() {
                Ok(packet) => self.sort(packet),
                Err(lost) => return lost,
            }
        }
    }

    /// Ends the connection with DISCONNECT.
    pub(crate) fn disconnect(mut self) {
        self.say_goodbye();
    }

    /// The same, of a client that is kept.
    pub(crate) fn say_goodbye(&mut self) {
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        }));
        self.wait_for_end();
    }

    /// Sends a packet. That the connection is gone shows when the next one is read.
    pub(crate) fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        encode(packet, self.version, &mut out);
        let _ = self.stream.write_all(&out);
    }

    fn new_packet_id(&mut self) -> PacketId {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.last_id).unwrap()
    }

    fn wait_for(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        self.try_wait_for(wanted)
            .unwrap_or_else(|lost| panic!("{} is lost: {lost:?}", self.user))
    }

    fn try_wait_for(&mut self, wanted: impl Fn(&Packet) -> bool) -> Result<Packet, Lost> {
        if let Some(at) = self.set_aside.iter().position(&wanted) {
            return Ok(self.set_aside.remove(at).unwrap());
        }
        loop {
            let packet = self.read()?;
            if wanted(&packet) {
                return Ok(packet);
            }
            self.sort(packet);
        }
    }

    fn sort(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.inbox.push_back(publish),
            other => self.set_aside.push_back(other),
        }
    }

    /// The next packet, whatever it is; a message is acked first if the client does so by itself.
    pub(crate) fn read(&mut self) -> Result<Packet, Lost> {
        let watch = Stopwatch::start();
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return self.take(packet);
            }
            let left = watch.left().unwrap_or_else(|| {
                panic!("nothing more came for {} in {PATIENCE:?}", self.user);
            });
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Lost::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, packet: Packet) -> Result<Packet, Lost> {
        match &packet {
            Packet::Publish(publish) => {
                if let (true, Some(id)) = (self.acks_by_itself, publish.packet_id) {
                    self.send(&match publish.qos {
                        Qos::ExactlyOnce => Packet::PubRec(Ack::success(id)),
                        _ => Packet::PubAck(Ack::success(id)),
                    });
                }
            }
            Packet::PubRel(ack) if self.acks_by_itself => {
                self.send(&Packet::PubComp(Ack::success(ack.packet_id)));
            }
            Packet::Disconnect(disconnect) => return Err(Lost::Disconnected(disconnect.reason)),
            _ => {}
        }
        Ok(packet)
    }
}

fn code_of(error: &Value) -> String {
    error["code"].as_str().unwrap().to_owned()
}

/// Properties with a message id.
pub(crate) fn with_mid(mid: &str) -> PublishProperties {
    PublishProperties {
        user_properties: vec![("mid".into(), mid.into())],
        ..PublishProperties::default()
    }
}

fn publish_packet(
    topic: &str,
    payload: impl AsRef<[u8]>,
    qos: Qos,
    packet_id: Option<PacketId>,
    properties: PublishProperties,
) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id,
        payload: Bytes::copy_from_slice(payload.as_ref()),
        properties: properties.into(),
    })
}
