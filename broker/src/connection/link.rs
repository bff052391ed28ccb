//! A byte stream with packets on it: reads and writes without waiting, in buffers that exist only while they are needed.
//!
//! Reading goes through one scratch buffer per thread and then into memory of the size of what came, so that an idle
//! connection holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;
use crate::codec::decode::{DecodeError, Decoder};
use crate::codec::encode::{encode, encode_publish};
use crate::codec::packet::{Packet, Version};
use crate::codec::properties::ConnectProperties;
use crate::metrics::{Metrics, QosTally};
use crate::session::Outgoing;

/// One network connection.
#[derive(Debug)]
pub(crate) struct Link<S> {
    stream: S,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    /// The stream took output that it may still hold itself, as TLS does.
    unflushed: bool,
    /// Since when the peer has taken nothing of what waits for it.
    blocked_since: Option<Instant>,
    /// A refusal with a reason in words may have so many bytes.
    refusal_bytes_max: u32,
    traffic: Traffic,
}

/// What has crossed a link.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes_received: usize,
    bytes_sent: usize,
    packets_received: usize,
    packets_sent: usize,
    publishes_received: QosTally,
    publishes_sent: QosTally,
    /// Of payloads.
    publish_bytes_received: QosTally,
    publish_bytes_sent: QosTally,
}

impl Traffic {
    pub(crate) fn count(&self, metrics: &Metrics) {
        metrics.bytes_received.add(self.bytes_received);
        metrics.bytes_sent.add(self.bytes_sent);
        metrics.packets_received.add(self.packets_received);
        metrics.packets_sent.add(self.packets_sent);
        metrics
            .publish_packets_received
            .add(self.publishes_received);
        metrics.publish_packets_sent.add(self.publishes_sent);
        metrics
            .publish_bytes_received
            .add(self.publish_bytes_received);
        metrics.publish_bytes_sent.add(self.publish_bytes_sent);
    }
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn new(stream: S, packet_bytes_max: u32) -> Self {
        Self {
            stream,
            decoder: Decoder::new(packet_bytes_max),
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            blocked_since: None,
            refusal_bytes_max: u32::MAX,
            traffic: Traffic::default(),
        }
    }

    /// Accepts MQTT 3.1 too.
    pub(crate) fn accept_mqtt31(&mut self) {
        self.decoder = self.decoder.clone().accepting_mqtt31();
    }

    pub(crate) const fn speaks_mqtt31(&self) -> bool {
        self.decoder.speaks_mqtt31()
    }

    pub(crate) const fn version(&self) -> Option<Version> {
        self.decoder.version()
    }

    /// As CONNECT says: words are not asked for, or have to fit.
    pub(crate) fn note_limits(&mut self, properties: &ConnectProperties) {
        let wanted = properties.request_problem_information.unwrap_or(true);
        let max = properties.maximum_packet_size.unwrap_or(u32::MAX);
        self.refusal_bytes_max = if wanted { max } else { 0 };
    }

    /// May a refusal have so many bytes, if it is longer than it has to be?
    pub(crate) fn may_explain(&self, bytes: usize) -> bool {
        bytes as u64 <= u64::from(self.refusal_bytes_max)
    }

    pub(crate) const fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.decoder.set_packet_bytes_max(packet_bytes_max);
    }

    /// Reads what is there; 0 bytes mean that the peer has closed.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            self.input.extend_from_slice(read);
            self.traffic.bytes_received += read.len();
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Takes the next packet out of what was read.
    ///
    /// # Errors
    /// The peer sent what is no packet: the connection must be closed.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, DecodeError> {
        let packet = self.decoder.decode(&mut self.input)?;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.traffic.packets_received += usize::from(packet.is_some());
        if let Some(Packet::Publish(publish)) = &packet {
            let (qos, bytes) = (publish.qos, publish.payload.len());
            self.traffic.publishes_received.add(qos, 1);
            self.traffic.publish_bytes_received.add(qos, bytes);
        }
        Ok(packet)
    }

    /// Bytes that were read and not taken yet.
    pub(crate) fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Reads until a packet is complete. `None`: the peer has closed.
    ///
    /// # Errors
    /// The stream failed, or the peer sent what is no packet.
    pub(crate) async fn read_packet(&mut self) -> Result<Option<Packet>, ReadError> {
        loop {
            if let Some(packet) = self.next_packet()? {
                return Ok(Some(packet));
            }
            if poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                return Ok(None);
            }
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet, version: Version) {
        self.traffic.packets_sent += 1;
        encode(packet, version, &mut self.output);
    }

    pub(crate) fn send_publish(&mut self, outgoing: &Outgoing, version: Version) {
        self.traffic.packets_sent += 1;
        let (qos, bytes) = (outgoing.qos, outgoing.publish.payload.len());
        self.traffic.publishes_sent.add(qos, 1);
        self.traffic.publish_bytes_sent.add(qos, bytes);
        encode_publish(
            &outgoing.publish,
            &outgoing.head(),
            version,
            &mut self.output,
        );
    }

    /// Bytes that wait to be written.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Does anything wait to be written, here or in the stream?
    pub(crate) fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    pub(crate) const fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Writes as much as the peer takes; ready when it took something, pending when it takes nothing now.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_output() {
            return Poll::Ready(Ok(()));
        }
        let mut progress = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.output.advance(written);
                    self.traffic.bytes_sent += written;
                    self.blocked_since = None;
                    self.unflushed = true;
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked_since.get_or_insert_with(clock::now);
                    break;
                }
            }
        }
        if self.output.is_empty() {
            self.output = BytesMut::new();
            return self.poll_flush(cx);
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The stream failed.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.has_output() {
            poll_fn(|cx| self.poll_write(cx)).await?;
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => {
                self.blocked_since.get_or_insert_with(clock::now);
                Poll::Pending
            }
            Poll::Ready(flushed) => {
                self.blocked_since = None;
                self.unflushed = false;
                Poll::Ready(flushed)
            }
        }
    }

    /// Writes what waits and closes the sending side.
    ///
    /// # Errors
    /// The stream failed.
    pub(crate) async fn shut(&mut self) -> io::Result<()> {
        self.flush().await?;
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }

    /// Writes what waits, closes the sending side, and reads on until the peer closes too: with unread input the system
    /// would reset the connection, and the peer might never read the last packet.
    ///
    /// # Errors
    /// What ended it early; there is nothing left to do about it.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.shut().await?;
        loop {
            self.input = BytesMut::new();
            if poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                return Ok(());
            }
        }
    }

    /// What has crossed since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}

/// Why no packet came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;
