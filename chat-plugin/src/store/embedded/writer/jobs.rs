//! Which verb of the writer each job is, and what it is answered.

use broker::store::kv::KvEngine;

use super::super::queue::{Job, Reply};
use super::super::values;
use super::{Done, TRUSTED_KEY, Writer};
use crate::store::{Durability, StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn handle(&mut self, job: Job) {
        if let Job::Close(reply) = job {
            self.shared.queue.close();
            if let Some(earlier) = self.closing.replace(reply) {
                Done::Unit(earlier).finish(Ok(()));
            }
            return;
        }
        if let Some(error) = self.shared.condition.refusal() {
            return job.refuse(error);
        }
        match job {
            Job::Append(drafts, reply) => {
                // Also if it fails half-way: a retry is told of duplicates, which have to be durable.
                self.group.is_durable = true;
                let outcomes = self.append(drafts);
                self.answer(outcomes, reply, Durability::Durable, Done::Append);
            }
            Job::Settle(keys, reply) => {
                let result = self.settle(&keys);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::PutDevice(device, inflight, durability, reply) => {
                let result = self.put_device(&device, inflight.as_deref());
                self.answer(result, reply, durability, |reply, ()| Done::Unit(reply));
            }
            Job::TakeInflight(device, reply) => {
                let inflight = self.take_inflight(device);
                self.answer(inflight, reply, Durability::Relaxed, Done::Inflight);
            }
            Job::RemoveDevice(user, device, reply) => {
                let result = self.remove_device(user, device);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::PutShared(shared, max, reply) => {
                let had_room = self.put_shared(&shared, max);
                self.answer(had_room, reply, Durability::Durable, Done::Flag);
            }
            Job::QueueEvent(sent, reply) => {
                let queued = self.queue_event(&sent);
                self.answer(queued, reply, Durability::Durable, Done::Queuing);
            }
            Job::EndDeviceEvents(device, places, reply) => {
                self.end_device_events(device, &places);
                self.answer(Ok(()), reply, Durability::Relaxed, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::RemoveShared(user, id, reply) => {
                let result = self.remove_shared(user, id);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::EndExchanges(device, reply) => {
                let result = self.end_exchanges(device);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::EndExchange(device, packet_id, reply) => {
                let had = self.end_exchange(device, packet_id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::HandOut(user, conversations, reply) => {
                let version = self.hand_out(user, &conversations);
                self.answer(version, reply, Durability::Durable, Done::Number);
            }
            Job::NoteChanged(user, conversations, reply) => {
                let result = self.note_changed(user, &conversations);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::SetPreferences(user, conversation, preferences, reply) => {
                let result = self.set_preferences(user, conversation, preferences);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Place(conversation, user, mid, reply) => {
                let place = self.place_of(conversation, user, &mid);
                self.answer(place, reply, Durability::Relaxed, Done::Place);
            }
            Job::CreateUser(user, reply) => {
                let result = self.create_user(&user);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::UpdateUser(user, reply) => {
                let result = self.update_user(&user);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::ReplaceProfile(user, change, reply) => {
                let replaced = self.replace_profile(user, &change);
                self.answer(replaced, reply, Durability::Durable, Done::Flag);
            }
            Job::PutPresence(changes, reply) => {
                let result = self.put_presence(changes);
                self.answer(result, reply, Durability::Relaxed, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::ChangeContact(pair, change, bounds, reply) => {
                let decided = self.change_contact(pair, &change, bounds);
                self.answer(decided, reply, Durability::Durable, Done::Decided);
            }
            Job::ChangeHandle(user, handles, now_ms, reply) => {
                let has_changed = self.change_handle(user, &handles, now_ms);
                self.answer(has_changed, reply, Durability::Durable, Done::Flag);
            }
            Job::PutToken(token, reply) => {
                let result = self.put_token(&token);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::RemoveToken(user, id, reply) => {
                let had = self.remove_token(user, &id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::PutInvitation(invitation, hash, reply) => {
                let had_room = self.put_invitation(*invitation, hash);
                self.answer(had_room, reply, Durability::Durable, Done::Flag);
            }
            Job::RevokeInvitation(conversation, id, reply) => {
                let had = self.revoke_invitation(conversation, id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::AskToJoin(asked, reply) => {
                let requested = self.ask_to_join(&asked);
                self.answer(requested, reply, Durability::Durable, Done::Requested);
            }
            Job::DropJoinRequest(conversation, user, told, reply) => {
                let (tell, line) = *told;
                let had = self.drop_join_request((conversation, user), &tell, line.as_deref());
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::Hide(place, user, ts_ms, reply) => {
                let was_seen = self.hide(place, user, ts_ms);
                self.answer(was_seen, reply, Durability::Durable, Done::Flag);
            }
            Job::Schedule(scheduled, max, reply) => {
                let scheduling = self.schedule(&scheduled, max);
                self.answer(scheduling, reply, Durability::Durable, Done::Scheduling);
            }
            Job::Reschedule(change, reply) => {
                let was_so = self.reschedule(&change.0, change.1.as_ref());
                self.answer(was_so, reply, Durability::Durable, Done::Flag);
            }
            Job::Expire(now_ms, reply) => {
                let expired = self.expire(now_ms);
                self.answer(expired, reply, Durability::Relaxed, Done::Count);
            }
            Job::Purge(conversation, purge, reply) => {
                let purged = self.purge(conversation, *purge);
                self.answer(purged, reply, Durability::Durable, Done::Purged);
            }
            Job::BroadcastTo(at, after, reply) => {
                let result = self.broadcast_to(at, after);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Hold(held, reply) => {
                let (draft, reason) = *held;
                let holding = self.hold(draft, reason);
                self.answer(holding, reply, Durability::Durable, Done::Holding);
            }
            Job::RejectHeld(conversation, from, rejected, reply) => {
                let (mid, line) = *rejected;
                let was_held = self.reject_held((conversation, from, &mid), line.as_deref());
                self.answer(was_held, reply, Durability::Durable, Done::Flag);
            }
            Job::Forget(user, reply) => {
                let reports = self.forget_user(user);
                self.answer(reports, reply, Durability::Durable, Done::Count);
            }
            Job::Trust(now_ms, reply) => {
                let value = values::write_number(now_ms).to_vec();
                self.put(tables::TRUSTED, TRUSTED_KEY, value);
                self.answer(Ok(()), reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Report(report, reply) => {
                let is_it = self.report(&report);
                self.answer(is_it, reply, Durability::Durable, Done::Flag);
            }
            Job::SettleReport(key, line, reply) => {
                let was_open = self.settle_report(&key, line.as_deref());
                self.answer(was_open, reply, Durability::Durable, Done::Flag);
            }
            Job::CloseReport(key, reply) => {
                let was_there = self.close_report(&key);
                self.answer(was_there, reply, Durability::Durable, Done::Flag);
            }
            Job::DropIds(before, after, reply) => {
                let dropped = self.drop_ids(before, after.as_deref());
                self.answer(dropped, reply, Durability::Durable, Done::Ids);
            }
            Job::Audit(line, number, reply) => {
                let number = self.audit(&line, number);
                self.answer(number, reply, Durability::Durable, Done::Number);
            }
            Job::ForgetAudit(of, keys, reply) => {
                let (user, handle) = *of;
                let result = self.forget_audit((user, handle.as_ref()), &keys);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Flush(reply) => {
                self.fold_all();
                self.group.is_forced |= self.relaxed_rows;
                self.answer(Ok(()), reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Maintain(now_ms, exchanges_from_ms, audit, reply) => {
                self.maintain((now_ms, exchanges_from_ms, audit), reply);
            }
            Job::Close(_) => {}
        }
    }

    /// Answers after the commit; a refusal at once.
    pub(super) fn answer<T>(
        &mut self,
        result: Result<T, StoreError>,
        reply: Reply<T>,
        durability: Durability,
        done: impl FnOnce(Reply<T>, T) -> Done,
    ) {
        match result {
            Ok(value) => {
                self.group.is_durable |= durability == Durability::Durable;
                self.group.done.push(done(reply, value));
            }
            Err(error) => {
                if let StoreError::Unavailable(reason) = &error {
                    self.poison(reason.clone());
                }
                // A caller that no longer waits does not want the answer either.
                let _gone = reply.send(Err(error)).is_err();
            }
        }
    }
}
