//! The message ids by which repeated messages are known: how many there are of which week, and forgetting them early.

use chat_plugin::store::ChatStore;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Request;
use super::reply::Reply;

/// Rows that are counted for one reply.
const PAGE: usize = 100_000;

/// A line of `store ids`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct IdWeek {
    pub(crate) week: u16,
    /// New ids are of this week.
    pub(super) present: bool,
    pub(super) rows: u64,
    /// Of keys and values, before the engine compresses them.
    pub(super) bytes: u64,
}

impl IdWeek {
    /// More of the same week.
    pub(crate) fn add(&mut self, more: &Self) {
        self.rows += more.rows;
        self.bytes += more.bytes;
    }
}

/// `None`: it is another kind of request.
pub(super) async fn carry_out(
    store: &dyn ChatStore,
    stop: &CancellationToken,
    request: &Request,
) -> Option<Result<Reply, String>> {
    match request {
        Request::StoreIds { after } => Some(count(store, after.clone()).await),
        Request::StoreDropIds { before } => Some(drop_before(store, stop, *before).await),
        _ => None,
    }
}

async fn count(store: &dyn ChatStore, after: Option<Vec<u8>>) -> Result<Reply, String> {
    let present = present(store).await?;
    let page = store.ids(after, PAGE).await.map_err(told)?;
    let line = |(week, rows, bytes)| IdWeek {
        week,
        present: week == present,
        rows,
        bytes,
    };
    Ok(Reply::Ids {
        weeks: page.weeks.into_iter().map(line).collect(),
        next: page.next,
    })
}

async fn drop_before(
    store: &dyn ChatStore,
    stop: &CancellationToken,
    before: u16,
) -> Result<Reply, String> {
    let present = present(store).await?;
    if before > present {
        return Err(format!(
            "{present} is the present week, which stays: at most --before {present}"
        ));
    }
    let (mut rows, mut after) = (0, None);
    loop {
        let dropped = store.drop_ids(before, after).await.map_err(told)?;
        rows += dropped.rows;
        match dropped.next {
            None => break,
            Some(_) if stop.is_cancelled() => {
                return Err(format!("the server stops; {rows} message ids are gone"));
            }
            next => after = next,
        }
    }
    tracing::info!(
        before,
        rows,
        "message ids of weeks that are over were dropped"
    );
    Ok(Reply::IdsDropped { before, rows })
}

/// The week that it is.
async fn present(store: &dyn ChatStore) -> Result<u16, String> {
    let none = store.drop_ids(0, None).await.map_err(told)?;
    Ok(none.week)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn told(error: impl ToString) -> String {
    error.to_string()
}
