//! The conversation that is open: a window of its log, what waits for the server, and where the eye is.

use client_sdk::{ConversationId, Reached, Seq, Target};

use crate::compose::Compose;
use crate::effect::{At, Effect, Page};
use crate::items::{Item, Key};

/// Lines of the log that are kept at most.
pub(crate) const WINDOW_MAX: usize = 500;
/// Entries that are asked for at once.
pub(crate) const PAGE: usize = 100;

/// A line on the screen: which line of which item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) key: Key,
    pub(crate) nth: usize,
}

/// The conversation that is open.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not by itself"
)]
pub(crate) struct Room {
    pub(crate) target: Target,
    pub(crate) cid: Option<ConversationId>,
    pub(crate) compose: Compose,
    /// By place.
    pub(crate) items: Vec<Item>,
    /// What waits for the server, oldest first.
    pub(crate) waiting: Vec<Item>,
    /// The places that `items` covers.
    pub(crate) span: Option<(Seq, Seq)>,
    /// There are older ones, as far as is known.
    pub(crate) more: bool,
    /// The newest ones are not in the window.
    pub(crate) detached: bool,
    pub(crate) reached: Reached,
    /// The last line that is seen; `None`: the end.
    pub(crate) anchor: Option<Anchor>,
    /// The message that something shall be done to.
    pub(crate) selected: Option<Key>,
    /// What is written quotes this one.
    pub(crate) replying: Option<Seq>,
    /// What is written becomes the text of this one.
    pub(crate) editing: Option<Seq>,
    /// What comes behind this was not read when the conversation was opened.
    pub(crate) new_after: Option<Seq>,
    /// Was said to be read up to here.
    pub(crate) marked: Seq,
    /// What the list knows of it was looked at.
    pub(crate) is_greeted: bool,
    /// A page has come.
    pub(crate) is_loaded: bool,
    /// This place is to be selected as soon as it is there.
    jump: Option<Seq>,
    /// What was asked for, and how much.
    loading: Option<(At, usize)>,
    /// Before this there is nothing that can be had now.
    exhausted: Option<Seq>,
    /// What is here is not the newest state.
    stale: bool,
}

impl Room {
    /// Nothing is known of it yet.
    pub(crate) fn new(target: Target, compose: Compose) -> Self {
        let cid = match target {
            Target::Conversation(cid) => Some(cid),
            _ => None,
        };
        Self {
            target,
            cid,
            compose,
            items: Vec::new(),
            waiting: Vec::new(),
            span: None,
            more: false,
            detached: false,
            reached: Reached::default(),
            anchor: None,
            selected: None,
            replying: None,
            editing: None,
            new_after: None,
            marked: Seq::ZERO,
            is_greeted: false,
            is_loaded: false,
            jump: None,
            loading: None,
            exhausted: None,
            stale: false,
        }
    }

    /// Everything that is shown, in order.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Item> {
        let waiting = if self.detached {
            [].iter()
        } else {
            self.waiting.iter()
        };
        self.items.iter().chain(waiting)
    }

    pub(crate) fn item(&self, key: &Key) -> Option<&Item> {
        self.all().find(|item| item.key == *key)
    }

    pub(crate) fn selected_item(&self) -> Option<&Item> {
        self.item(self.selected.as_ref()?)
    }

    /// The end of what is shown is the end of the conversation.
    pub(crate) fn is_at_end(&self) -> bool {
        self.anchor.is_none() && !self.detached && self.is_loaded
    }

    /// Looks again at what is in the window.
    pub(crate) fn refresh(&mut self) -> Option<Effect> {
        let covered = self.span.map_or(0, |(first, last)| {
            last.get().saturating_sub(first.get()).saturating_add(1)
        });
        let limit = usize::try_from(covered).unwrap_or(WINDOW_MAX);
        match self.span {
            Some((first, _)) if self.detached => {
                self.load(At::From(first), limit.clamp(PAGE, WINDOW_MAX))
            }
            _ => self.load(
                At::Newest,
                limit.saturating_add(PAGE / 2).clamp(PAGE, WINDOW_MAX),
            ),
        }
    }

    /// There is something before the window that can be asked for now.
    pub(crate) fn has_older(&self) -> bool {
        let first = self.span.map(|(first, _)| first);
        self.more && first.is_some() && self.loading.is_none() && self.exhausted != first
    }

    /// What is before the window.
    pub(crate) fn load_older(&mut self) -> Option<Effect> {
        let (first, _) = self.span.filter(|_| self.has_older())?;
        self.load(At::Before(first), PAGE)
    }

    /// What is behind the window.
    pub(crate) fn load_newer(&mut self) -> Option<Effect> {
        let (_, last) = self.span.filter(|_| self.detached)?;
        if self.loading.is_some() {
            return None;
        }
        self.load(At::From(Seq::new(last.get() + 1)), PAGE)
    }

    /// Goes to a place, wherever it is.
    pub(crate) fn jump_to(&mut self, seq: Seq) -> Option<Effect> {
        self.jump = Some(seq);
        if self.items.iter().any(|item| item.seq() == Some(seq)) {
            self.land();
            return None;
        }
        (self.items, self.span, self.detached) = (Vec::new(), None, true);
        let from = seq.get().saturating_sub(PAGE as u64 / 2).max(1);
        // A page that is under way now is none of this window.
        self.loading = None;
        self.load(At::From(Seq::new(from)), PAGE)
    }

    /// Goes to the end.
    pub(crate) fn go_to_end(&mut self) -> Option<Effect> {
        (self.anchor, self.selected) = (None, None);
        if !self.detached {
            return None;
        }
        (self.items, self.span, self.detached) = (Vec::new(), None, false);
        self.loading = None;
        self.load(At::Newest, PAGE)
    }

    fn load(&mut self, at: At, limit: usize) -> Option<Effect> {
        if self.loading.is_some() {
            self.stale = true;
            return None;
        }
        self.loading = Some((at, limit));
        Some(Effect::Page(self.target.clone(), at, limit))
    }

    /// Takes a page that was asked for. What is to be looked at next.
    pub(crate) fn take(&mut self, at: At, page: Page) -> Option<Effect> {
        let (_, limit) = self.loading.take_if(|(wanted, _)| *wanted == at)?;
        self.is_loaded = true;
        self.cid = page.cid.or(self.cid);
        self.reached = page.reached;
        self.waiting = page.waiting;
        match page.span {
            Some(span) => self.put(at, span, page.items, page.more, limit),
            None => self.exhaust(at),
        }
        self.land();
        self.again()
    }

    /// A page that was asked for does not come.
    pub(crate) fn fail(&mut self, at: At) -> Option<Effect> {
        self.loading.take_if(|(wanted, _)| *wanted == at)?;
        self.is_loaded = true;
        self.exhaust(at);
        self.again()
    }

    fn exhaust(&mut self, at: At) {
        if let At::Before(seq) = at {
            self.exhausted = Some(seq);
        }
    }

    fn again(&mut self) -> Option<Effect> {
        if std::mem::take(&mut self.stale) {
            return self.refresh();
        }
        None
    }

    fn put(&mut self, at: At, (from, to): (Seq, Seq), items: Vec<Item>, more: bool, limit: usize) {
        if let Some((_, last)) = self.span
            && from.get() > last.get().saturating_add(1)
        {
            // The end has run away from a window that somebody reads.
            if at == At::Newest && self.anchor.is_some() {
                self.detached = true;
                return;
            }
            (self.items, self.span) = (Vec::new(), None);
        }
        let is_inside = |item: &Item| item.seq().is_some_and(|seq| from <= seq && seq <= to);
        self.items.retain(|item| !is_inside(item));
        self.items.extend(items);
        self.items.sort_by_key(Item::seq);
        let (first, last) = self.span.unwrap_or((from, to));
        if from <= first {
            self.more = more;
        }
        if let At::From(start) = at {
            self.detached = to.get().saturating_add(1) >= start.get().saturating_add(limit as u64);
        }
        self.span = Some((first.min(from), last.max(to)));
        self.trim(at);
    }

    /// Bounds the window, at the end that is not looked at.
    fn trim(&mut self, at: At) {
        let too_many = self.items.len().saturating_sub(WINDOW_MAX);
        if too_many == 0 {
            return;
        }
        if matches!(at, At::Before(_)) {
            self.items.truncate(WINDOW_MAX);
            self.detached = true;
        } else {
            self.items.drain(..too_many);
            self.more = true;
        }
        let ends = self.items.first().zip(self.items.last());
        self.span = ends.and_then(|(first, last)| first.seq().zip(last.seq()));
    }

    fn land(&mut self) {
        let Some(seq) = self.jump else { return };
        let key = Key::At(seq);
        if self.item(&key).is_some() {
            self.jump = None;
            self.selected = Some(key.clone());
            self.anchor = Some(Anchor {
                key,
                nth: usize::MAX,
            });
        }
    }

    /// There may be older ones again: the network is back.
    pub(crate) fn hope(&mut self) {
        self.exhausted = None;
    }
}
