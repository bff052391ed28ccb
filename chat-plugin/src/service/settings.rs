//! What a conversation is: title, picture, policies, open or closed.

use proto::ids::{ConversationId, ConversationKind};
use serde::Serialize;
use serde_json::json;

use super::membership::{Proposal, Request};
use super::{Placed, Refusal, Service, permit};
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::entry::{Change, EntryKind};
use crate::domain::permission::Action;

/// Longest texts, in bytes.
const TITLE_MAX: usize = 256;
const DESCRIPTION_MAX: usize = 2_048;
const PHOTO_MAX: usize = 256;
const TAGS_MAX: usize = 16;
const TAG_MAX: usize = 32;
/// All that others read of a conversation.
const TEXTS_MAX: usize = TITLE_MAX + DESCRIPTION_MAX + TAGS_MAX * TAG_MAX;
/// Most seconds between two messages of one member: a day.
const SLOW_S_MAX: u32 = 86_400;

/// New values of settings; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// At most 256 bytes.
    pub title: Option<String>,
    /// At most 2,048 bytes.
    pub description: Option<String>,
    /// What later members may see.
    pub history: Option<HistoryPolicy>,
    /// Seconds that later messages last; 0: for ever.
    pub ttl_s: Option<u32>,
    /// Reference of a picture, at most 256 bytes.
    pub photo: Option<String>,
    /// Anybody may find it and join.
    pub public: Option<bool>,
    /// Who joins a public one has to be approved.
    pub approval: Option<bool>,
    /// Seconds between two messages of one member, at most a day; 0: none.
    pub slow_s: Option<u32>,
    /// Words by which a public one is found.
    pub tags: Option<Vec<String>>,
    /// Its members answer support cases. For groups.
    pub desk: Option<bool>,
    /// Nothing more is said. For owners.
    pub closed: Option<bool>,
    /// Days that messages stay; 0: for ever. For owners.
    pub retention_days: Option<u32>,
    /// So many of the newest messages stay; 0: all. For owners.
    pub retention_messages: Option<u32>,
}

impl SettingsChange {
    /// Is it about more than whether it is closed?
    fn is_about_more(&self) -> bool {
        *self
            != Self {
                closed: self.closed,
                ..Self::default()
            }
    }

    /// What of it others read.
    fn texts(&self) -> Vec<&str> {
        let texts = [&self.title, &self.description].into_iter().flatten();
        texts
            .chain(self.tags.iter().flatten())
            .map(String::as_str)
            .collect()
    }

    /// Changes settings, and says what is new.
    fn apply(&self, settings: &mut Settings) -> serde_json::Map<String, serde_json::Value> {
        let mut news = serde_json::Map::new();
        set("title", self.title.as_ref(), &mut settings.title, &mut news);
        let description = &mut settings.description;
        set(
            "description",
            self.description.as_ref(),
            description,
            &mut news,
        );
        set(
            "history",
            self.history.as_ref(),
            &mut settings.history,
            &mut news,
        );
        set("ttl_s", self.ttl_s.as_ref(), &mut settings.ttl_s, &mut news);
        set("photo", self.photo.as_ref(), &mut settings.photo, &mut news);
        set(
            "public",
            self.public.as_ref(),
            &mut settings.public,
            &mut news,
        );
        set(
            "approval",
            self.approval.as_ref(),
            &mut settings.approval,
            &mut news,
        );
        set(
            "slow_s",
            self.slow_s.as_ref(),
            &mut settings.slow_s,
            &mut news,
        );
        set(
            "closed",
            self.closed.as_ref(),
            &mut settings.closed,
            &mut news,
        );
        set("tags", self.tags.as_ref(), &mut settings.tags, &mut news);
        set("desk", self.desk.as_ref(), &mut settings.desk, &mut news);
        let days = &mut settings.retention_days;
        set(
            "retention_days",
            self.retention_days.as_ref(),
            days,
            &mut news,
        );
        let messages = &mut settings.retention_messages;
        set(
            "retention_messages",
            self.retention_messages.as_ref(),
            messages,
            &mut news,
        );
        news
    }
}

/// What others read of a conversation that is made.
pub(super) fn texts_of(settings: &Settings) -> Vec<&str> {
    let texts = [&settings.title, &settings.description];
    let texts = texts.into_iter().chain(&settings.tags);
    texts.map(String::as_str).collect()
}

fn set<T: Clone + Serialize>(
    name: &str,
    new: Option<&T>,
    value: &mut T,
    news: &mut serde_json::Map<String, serde_json::Value>,
) {
    if let Some(new) = new {
        value.clone_from(new);
        news.insert(name.to_owned(), json!(new));
    }
}

impl Service {
    /// Changes settings.
    ///
    /// # Errors
    /// Why not.
    pub async fn change_settings(
        &self,
        request: Request,
        id: ConversationId,
        change: SettingsChange,
    ) -> Result<Placed, Refusal> {
        self.check_texts(&request, id, &change).await?;
        self.change(&request, id, |sight, _, settings| {
            if change.closed.is_some() {
                permit(id, sight, Action::Close)?;
            }
            if change.retention_days.is_some() || change.retention_messages.is_some() {
                permit(id, sight, Action::Retention)?;
            }
            if change.is_about_more() || change.closed.is_none() {
                permit(id, sight, Action::Settings)?;
            }
            let mut settings = settings.clone();
            let body = change.apply(&mut settings);
            if body.is_empty() {
                return Err(Refusal::format("nothing to change"));
            }
            check_settings(id.kind(), &settings)?;
            let changes = vec![Change::Settings(settings)];
            Ok(Some(Proposal {
                kind: EntryKind::Settings,
                body: body.into(),
                changes,
            }))
        })
        .await
    }
}

impl Service {
    /// Asks the filter about the texts of a change that the actor may make. What he may not, or what is too long, is refused
    /// without it.
    async fn check_texts(
        &self,
        request: &Request,
        id: ConversationId,
        change: &SettingsChange,
    ) -> Result<(), Refusal> {
        let texts = change.texts();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if texts.is_empty() || bytes > TEXTS_MAX || !self.has_filter() {
            return Ok(());
        }
        match self.present(request.actor.user, id).await {
            Ok((_, sight)) if permit(id, &sight, Action::Settings).is_ok() => {
                self.check_change(request, id, &texts).await
            }
            Err(Refusal::Store(error)) => Err(Refusal::Store(error)),
            _ => Ok(()),
        }
    }
}

pub(super) fn check_settings(kind: ConversationKind, settings: &Settings) -> Result<(), Refusal> {
    if settings.desk && settings.public && !settings.approval {
        return Err(Refusal::format(
            "who joins a desk answers there: a public one needs approval",
        ));
    }
    if settings.desk && kind != ConversationKind::Group {
        return Err(Refusal::format("only a group is a desk"));
    }
    let plain = Settings {
        title: settings.title.clone(),
        description: settings.description.clone(),
        photo: settings.photo.clone(),
        ttl_s: settings.ttl_s,
        ..Settings::default()
    };
    if kind == ConversationKind::Broadcast && *settings != plain {
        return Err(Refusal::format(
            "a broadcast list has title, description, photo and ttl_s only",
        ));
    }
    let is_word = |tag: &String| tag.len() <= TAG_MAX && tag.chars().all(char::is_alphanumeric);
    if settings.tags.len() > TAGS_MAX || !settings.tags.iter().all(is_word) {
        return Err(Refusal::format(format!(
            "tags are at most {TAGS_MAX} words of letters and digits, each of at most {TAG_MAX} bytes"
        )));
    }
    let texts = [
        ("title", &settings.title, TITLE_MAX),
        ("description", &settings.description, DESCRIPTION_MAX),
        ("photo", &settings.photo, PHOTO_MAX),
    ];
    for (name, text, max) in texts {
        if text.len() > max {
            return Err(Refusal::format(format!(
                "the {name} is longer than {max} bytes"
            )));
        }
    }
    if settings.slow_s > SLOW_S_MAX {
        return Err(Refusal::format(format!("slow_s is at most {SLOW_S_MAX}")));
    }
    Ok(())
}
