//! The private queues of devices. Table device event has what is needed to count, table device data what is handed out; at
//! place 0 stands the last place that was given, and under a name of the user that of all queues that are no more.

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId, digest16};

use super::super::values::{self, First, devices};
use super::super::{keys, reads};
use super::Writer;
use crate::domain::queue::{DeviceEvent, QueueLimits, Queuing, ToDevice};
use crate::store::{StoreError, tables};

/// A part of a queue, with what is new in it.
struct Fill {
    events: usize,
    bytes: u64,
}

impl Fill {
    fn of(bytes: u64) -> Self {
        Self { events: 1, bytes }
    }

    fn take(&mut self, bytes: u64) {
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn fits(&self, events: usize, bytes: usize) -> bool {
        self.events <= events && self.bytes <= bytes as u64
    }
}

/// What stands for all queues of a user that are no more. No device has this id.
fn of_all(user: UserId) -> DeviceId {
    DeviceId::from_bytes(digest16(&[b"queues", user.as_bytes()]))
}

impl<K: KvEngine> Writer<K> {
    /// Gives an event the next place in the queue of a device.
    pub(super) fn queue_event(&mut self, sent: &ToDevice) -> Result<Queuing, StoreError> {
        self.barrier()?;
        let device = self.row(tables::DEVICE, &keys::device(sent.user, sent.to))?;
        let device = device.map(|row| values::read_device(sent.user, sent.to, &row));
        if !device.transpose()?.is_some_and(|device| device.has_queue) {
            return Ok(Queuing::NoQueue);
        }
        // No conversation has this id: what is sent to a device has names of its own.
        let place = ConversationId::from_parts(ConversationKind::Direct, *sent.to.as_bytes());
        let mut mid_key = Vec::new();
        keys::idempotency(&mut mid_key, place, sent.event.from, &sent.mid);
        if let Some(first) = self.first(place, &mut mid_key)? {
            return Ok(if first.digest == sent.digest {
                Queuing::Duplicate
            } else {
                Queuing::Conflict
            });
        }
        if !self.has_room(sent)? {
            return Ok(Queuing::Full);
        }
        let dseq = self.last_dseq(sent.user, sent.to)? + 1;
        keys::set_week(&mut mid_key, self.week());
        let first = First {
            seq: Seq::new(dseq),
            ts_ms: sent.event.ts_ms,
            digest: sent.digest,
        };
        let mut value = Vec::new();
        values::write_first(&mut value, &first);
        self.put(tables::IDEMPOTENCY, &mid_key, value);
        let key = keys::device_event(sent.to, dseq);
        self.put(
            tables::DEVICE_EVENT,
            &key,
            devices::write_event(&sent.event),
        );
        self.put(tables::DEVICE_DATA, &key, devices::write_data(&sent.event));
        let last = keys::device_event(sent.to, 0);
        self.put(tables::DEVICE_EVENT, &last, devices::write_last(dseq));
        Ok(Queuing::Queued(dseq))
    }

    /// Is there room for it? What is over makes room. Those whom the owner does not know fill half of it together, however
    /// many they are, and his own devices have some that nobody else has. Scans, so it needs [`Writer::barrier`] before it.
    fn has_room(&mut self, sent: &ToDevice) -> Result<bool, StoreError> {
        let (now_ms, new) = (sent.event.ts_ms, sent.event.data.len() as u64);
        let (is_own, is_known) = (
            sent.event.from == sent.user,
            self.knows(sent.user, sent.event.from)?,
        );
        let (mut all, mut of_sender, mut of_strangers) =
            (Fill::of(new), Fill::of(new), Fill::of(new));
        for (event, size) in self.events_of(sent.to)? {
            if event.expires_ms <= now_ms {
                self.remove_event(sent.to, event.dseq);
                continue;
            }
            all.take(size);
            if event.from == sent.event.from {
                of_sender.take(size);
            }
            if !is_known && !self.knows(sent.user, event.from)? {
                of_strangers.take(size);
            }
        }
        let QueueLimits {
            events,
            events_of_sender,
            bytes,
        } = sent.limits;
        let reserve = if is_own {
            (events_of_sender, bytes / 4)
        } else {
            (0, 0)
        };
        Ok(all.fits(
            events.saturating_add(reserve.0),
            bytes.saturating_add(reserve.1),
        ) && of_sender.fits(events_of_sender, usize::MAX)
            && (is_known || of_strangers.fits(events / 2, bytes / 2)))
    }

    /// Has a user to do with another one by his own will: is it himself, a contact, or somebody to whom he has written?
    fn knows(&mut self, user: UserId, other: UserId) -> Result<bool, StoreError> {
        if user == other {
            return Ok(true);
        }
        let row = self.row(tables::CONTACT, &keys::contact(user, other))?;
        let contact = row.map(|row| values::read_contact(other, &row));
        if contact
            .transpose()?
            .is_some_and(|contact| contact.is_contact())
        {
            return Ok(true);
        }
        Ok(self.own_count(ConversationId::direct(user, other), user)? > 0)
    }

    fn events_of(&self, device: DeviceId) -> Result<Vec<(DeviceEvent, u64)>, StoreError> {
        let first = keys::device_event(device, 1);
        let last = keys::device_event(device, u64::MAX);
        let rows = self.rows_in(tables::DEVICE_EVENT, KeyRange::closed(&first, &last))?;
        let read = |(key, row): &(Vec<u8>, Vec<u8>)| {
            devices::read_event(reads::device_event_of(key)?.1, row)
        };
        rows.iter().map(read).collect()
    }

    /// The last place that was given in the queue of a device, or in one that it may have had before.
    fn last_dseq(&self, user: UserId, device: DeviceId) -> Result<u64, StoreError> {
        match self.last_at(device)? {
            Some(last) => Ok(last),
            None => Ok(self.last_at(of_all(user))?.unwrap_or_default()),
        }
    }

    fn last_at(&self, device: DeviceId) -> Result<Option<u64>, StoreError> {
        let row = self.row(tables::DEVICE_EVENT, &keys::device_event(device, 0))?;
        row.map(|row| devices::read_last(&row)).transpose()
    }

    /// The device has these events.
    pub(super) fn end_device_events(&mut self, device: DeviceId, places: &[u64]) {
        for dseq in places {
            self.remove_event(device, *dseq);
        }
    }

    /// Removes the queue of a device. The device may come back, and must not be given a place twice: of all queues of its user
    /// that are no more the last place is kept, in one row however many there were.
    /// Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_queue(
        &mut self,
        user: UserId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        let last = self.last_at(device)?;
        if last > self.last_at(of_all(user))? {
            let key = keys::device_event(of_all(user), 0);
            let last = devices::write_last(last.unwrap_or_default());
            self.put(tables::DEVICE_EVENT, &key, last);
        }
        let first = keys::device_event(device, 0);
        let last = keys::device_event(device, u64::MAX);
        for key in self.keys(tables::DEVICE_EVENT, KeyRange::closed(&first, &last))? {
            self.remove(tables::DEVICE_DATA, &key);
            self.remove(tables::DEVICE_EVENT, &key);
        }
        Ok(())
    }

    /// Of a user who is removed no place is kept.
    pub(super) fn forget_places(&mut self, user: UserId) {
        let key = keys::device_event(of_all(user), 0);
        self.remove(tables::DEVICE_EVENT, &key);
    }

    /// What a user has sent to devices and none of them has yet. Looks at all that waits; scans, so it needs
    /// [`Writer::barrier`] before it.
    pub(super) fn forget_events_of(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, row) in self.rows_in(tables::DEVICE_EVENT, KeyRange::ALL)? {
            let (device, dseq) = reads::device_event_of(&key)?;
            if dseq > 0 && devices::read_event(dseq, &row)?.0.from == user {
                self.remove_event(device, dseq);
            }
        }
        Ok(())
    }

    fn remove_event(&mut self, device: DeviceId, dseq: u64) {
        let key = keys::device_event(device, dseq);
        self.remove(tables::DEVICE_EVENT, &key);
        self.remove(tables::DEVICE_DATA, &key);
    }
}
