//! MQTT over WebSocket (MQTT 5.0 §6, RFC 6455): a byte stream within binary frames.
//!
//! MQTT does not care where frames and messages begin and end [MQTT-6.0.0-2]. So nothing is gathered: what is read is
//! unmasked where it stands and handed on, and what is written becomes one frame as it is. An idle connection holds no
//! buffer, and no frame is too long. Text frames close the connection [MQTT-6.0.0-1], and so does whatever RFC 6455 does
//! not allow, with the code that says why. No extension is offered, compression least of all.

mod frame;
mod handshake;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use self::frame::{Code, End, Head, Reader};
pub(super) use self::handshake::{HandshakeError, Terms, accept};

/// A stream of bytes within WebSocket frames, after the handshake.
///
/// Who was told that bytes of a buffer were not taken yet has to offer the same bytes again: their frame may have begun.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: S,
    reader: Reader,
    writer: Writer,
    /// The reader was told of the violation that ended reading.
    is_told: bool,
    /// Cancelled when the server goes away: the close frame says so.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Writer {
    /// What is left of the head of the frame that is being written.
    head: Head,
    /// Bytes of data that this frame still needs.
    left: usize,
    /// What is left of a control frame; begins only between two data frames.
    control: Vec<u8>,
    /// Our close frame has been queued: it is the last one.
    is_closed: bool,
}

impl<S> WebSocket<S> {
    pub(super) fn new(stream: S, stop: CancellationToken) -> Self {
        Self {
            stream,
            reader: Reader::default(),
            writer: Writer::default(),
            is_told: false,
            stop,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Answers pings and close, as far as the peer takes it now: it may not read, and nobody waits for that.
    fn answer(&mut self, cx: &mut Context<'_>) {
        // An error shows in the next read as well.
        if let Poll::Ready(Ok(())) = self.poll_control(cx) {
            let _flushed = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }

    /// Is there an answer that found no room?
    fn owes_answer(&self) -> bool {
        !self.writer.control.is_empty() || self.reader.has_ping()
    }

    /// Writes the control frames that wait, unless a data frame is under way.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.writer.is_between_frames() {
            self.writer.queue_control(&mut self.reader);
            if self.writer.control.is_empty() {
                break;
            }
            let control = &self.writer.control;
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, control))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writer.control.drain(..written);
        }
        if self.writer.control.is_empty() {
            self.writer.control = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads to the end what nobody wants to see.
    fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(start);
        }
    }
}

impl Writer {
    fn is_between_frames(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    /// Chooses the next control frame, unless one is being written.
    fn queue_control(&mut self, reader: &mut Reader) {
        if !self.control.is_empty() || self.is_closed {
            return;
        }
        if let Some(End::Closed(code)) = reader.end() {
            self.close(code);
        } else if let Some(payload) = reader.take_ping() {
            self.control = frame::pong(&payload);
        }
    }

    fn close(&mut self, code: Option<Code>) {
        self.is_closed = true;
        self.control.extend_from_slice(&frame::close(code));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.owes_answer() {
            this.answer(cx);
        }
        let start = buf.filled().len();
        loop {
            match this.reader.end() {
                None => {}
                Some(End::Closed(_)) => return Poll::Ready(Ok(())),
                Some(End::Violation(_)) if this.is_told => return this.poll_discard(cx, buf),
                Some(End::Violation(violation)) => {
                    this.is_told = true;
                    let error = io::Error::new(io::ErrorKind::InvalidData, violation);
                    return Poll::Ready(Err(error));
                }
            }
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let Some(read) = buf.filled_mut().get_mut(start..) else {
                return Poll::Ready(Ok(()));
            };
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let data = this.reader.read(read);
            buf.set_filled(start + data);
            this.answer(cx);
            if data > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.writer.is_between_frames() {
            ready!(this.poll_control(cx))?;
            if this.writer.is_closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let len = buf.len().min(FRAME_BYTES_MAX);
            this.writer.head = Head::binary(len);
            this.writer.left = len;
        }
        let data = buf.get(..this.writer.left).unwrap_or(buf);
        loop {
            let head = this.writer.head.as_bytes();
            let parts = [IoSlice::new(head), IoSlice::new(data)];
            let stream = Pin::new(&mut this.stream);
            let written = ready!(stream.poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_data = this.writer.head.advance(written);
            this.writer.left -= of_data;
            if of_data > 0 {
                return Poll::Ready(Ok(of_data));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Within a frame that was cut short nothing can be said any more.
        if this.writer.is_between_frames() {
            if !this.writer.is_closed {
                let code = match this.reader.end() {
                    Some(End::Violation(violation)) => violation.code(),
                    Some(End::Closed(_)) | None if this.stop.is_cancelled() => Code::GOING_AWAY,
                    Some(End::Closed(_)) | None => Code::NORMAL,
                };
                this.writer.close(Some(code));
            }
            ready!(this.poll_control(cx))?;
        }
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Longest data frame that is written: it needs no longer head.
const FRAME_BYTES_MAX: usize = 0xFFFF;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::frame::tests::masked;
    use super::*;

    const BINARY: u8 = 0x82;
    const PING: u8 = 0x89;
    const CLOSE: u8 = 0x88;

    fn pair(bytes: usize) -> (WebSocket<DuplexStream>, DuplexStream, CancellationToken) {
        let (stream, peer) = duplex(bytes);
        let stop = CancellationToken::new();
        (WebSocket::new(stream, stop.clone()), peer, stop)
    }

    /// Head and payload of a frame of the server.
    async fn next_frame(peer: &mut DuplexStream) -> (u8, Vec<u8>) {
        let first = peer.read_u8().await.unwrap();
        let len = match peer.read_u8().await.unwrap() {
            126 => peer.read_u16().await.unwrap().into(),
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        peer.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    #[tokio::test]
    async fn data_come_out_whatever_the_frames() {
        let (mut server, mut peer, _) = pair(1 << 16);
        let frames = [
            masked(BINARY, b"ab"),
            masked(0x02, b"c"),
            masked(PING, b"are you there"),
            masked(0x00, b""),
            masked(0x80, b"de"),
            masked(BINARY, &[b'f'; 300]),
        ];
        peer.write_all(&frames.concat()).await.unwrap();
        let mut data = vec![0; 305];
        server.read_exact(&mut data).await.unwrap();
        assert_eq!(data, [&b"abcde"[..], &[b'f'; 300]].concat());
        assert_eq!(
            next_frame(&mut peer).await,
            (0x8A, b"are you there".to_vec())
        );
    }

    #[tokio::test]
    async fn what_is_written_becomes_binary_frames_however_slowly_it_is_taken() {
        let (mut server, mut peer, _) = pair(7);
        let data: Vec<u8> = (0..70_000_u32)
            .map(|number| number.to_be_bytes()[3])
            .collect();
        let write = async {
            server.write_all(&data).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let read = async {
            let mut found = Vec::new();
            loop {
                match next_frame(&mut peer).await {
                    (BINARY, payload) => found.extend(payload),
                    (first, payload) => return (found, first, payload),
                }
            }
        };
        let ((), (found, last, code)) = tokio::join!(write, read);
        assert!(found == data, "other bytes");
        assert_eq!((last, code), (CLOSE, vec![0x03, 0xE8]));
    }

    #[tokio::test]
    async fn a_pong_that_found_no_room_is_sent_when_there_is() {
        let (mut server, mut peer, _) = pair(40);
        // A head of 2 bytes and 36 of data: 2 bytes of room are left.
        server.write_all(&[1; 36]).await.unwrap();
        server.flush().await.unwrap();
        peer.write_all(&masked(PING, b"hey")).await.unwrap();
        let mut data = [0; 1];
        let mut reading = std::pin::pin!(server.read(&mut data));
        let frames = async {
            assert_eq!(next_frame(&mut peer).await.0, BINARY);
            next_frame(&mut peer).await
        };
        tokio::select! {
            biased;
            read = reading.as_mut() => panic!("nothing was sent: {read:?}"),
            pong = frames => assert_eq!(pong, (0x8A, b"hey".to_vec())),
        }
    }

    #[tokio::test]
    async fn close_is_answered_with_its_code() {
        let (mut server, mut peer, _) = pair(1_000);
        let frames = [masked(BINARY, b"last"), masked(CLOSE, &[0x03, 0xE9])];
        peer.write_all(&frames.concat()).await.unwrap();
        let mut data = Vec::new();
        server.read_to_end(&mut data).await.unwrap();
        assert_eq!(data, b"last");
        assert_eq!(next_frame(&mut peer).await, (CLOSE, vec![0x03, 0xE9]));
        assert!(server.write_all(b"more").await.is_err());
        server.shutdown().await.unwrap();
        assert!(peer.read_u8().await.is_err(), "a second close");
    }

    #[tokio::test]
    async fn a_server_that_stops_is_going_away() {
        let (mut server, mut peer, stop) = pair(1_000);
        stop.cancel();
        server.shutdown().await.unwrap();
        assert_eq!(next_frame(&mut peer).await, (CLOSE, vec![0x03, 0xE9]));
    }

    #[tokio::test]
    async fn a_text_frame_closes_with_1003_after_the_data_before_it() {
        let (mut server, mut peer, _) = pair(1_000);
        let frames = [
            masked(BINARY, b"ok"),
            masked(0x81, b"text"),
            masked(BINARY, b"no"),
        ];
        peer.write_all(&frames.concat()).await.unwrap();
        let mut data = [0; 10];
        assert_eq!(server.read(&mut data).await.unwrap(), 2);
        let error = server.read(&mut data).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.shutdown().await.unwrap();
        assert_eq!(next_frame(&mut peer).await, (CLOSE, vec![0x03, 0xEB]));
        peer.write_all(&masked(BINARY, b"more")).await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(server.read(&mut data).await.unwrap(), 0);
    }
}
