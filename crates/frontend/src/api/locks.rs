//! Locks over HTTP: who holds them, and who waits for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Json;
use axum::extract::{Query, State};
use distci_model::id::{BuildRef, LockKey, TaskName, TicketKey};
use distci_model::ticket::QueueName;
use distci_model::wire::{About, LockBlock, LockHolder, LockView, LockWaiter, Page, Problem};
use distci_store::{Blocked, StoreError};

use super::jobs::Paging;
use crate::app::App;
use crate::error::ApiError;

/// Most holders and most waiting tickets that are told of one lock.
const MAX_TOLD: usize = 100;
/// Most holders that are told with each ticket of the queue.
const MAX_NAMED: usize = 4;

/// The locks that are held, or that tickets wait for, in no order that means anything. Who waits is
/// what this frontend has seen when it last tried.
#[utoipa::path(get, path = "/locks", tag = "cluster", params(Paging),
    responses((status = 200, body = Page<LockView>), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<LockView>>, ApiError> {
    let after: Option<LockKey> = match &paging.cursor {
        None => None,
        Some(cursor) => {
            let key = cursor.parse();
            Some(key.map_err(|_| ApiError::malformed("the cursor is not the key of a lock"))?)
        }
    };
    let held = app.store.locks().await?;
    let blocked = app.board.blocked(MAX_TOLD).into_iter();
    let mut blocked: BTreeMap<LockKey, (Blocked, Vec<QueueName>)> =
        blocked.map(|row| (row.0.lock.clone(), row)).collect();
    let all: BTreeSet<LockKey> = held.keys().chain(blocked.keys()).cloned().collect();
    let rest = all.into_iter().filter(|key| after.as_ref() < Some(key));
    let mut rest = rest.peekable();
    let (mut items, mut last) = (Vec::new(), None);
    while items.len() < paging.limit() {
        let Some(key) = rest.next() else { break };
        let taken = held.get(&key).copied().unwrap_or_default();
        let view = view(&app, &key, taken, blocked.remove(&key)).await?;
        last = Some(key.to_string());
        items.extend(view);
    }
    let next = last.filter(|_| rest.peek().is_some());
    Ok(Json(Page { items, next }))
}

/// A lock with its holders; `None` if nobody holds it any more or waits for it.
async fn view(
    app: &App,
    key: &LockKey,
    taken: usize,
    blocked: Option<(Blocked, Vec<QueueName>)>,
) -> Result<Option<LockView>, StoreError> {
    let slots = app.store.lock_holders(key, MAX_TOLD).await?;
    let (blocked, waiting) = blocked.unzip();
    let name = blocked
        .map(|blocked| blocked.name)
        .or_else(|| slots.first().map(|slot| slot.name.clone()));
    let Some(name) = name else { return Ok(None) };
    let mut held = Vec::new();
    for slot in slots {
        // Given back since.
        let Some((build, task)) = part_of(app, &slot.ticket).await? else {
            continue;
        };
        held.push(LockHolder {
            slot: slot.slot,
            ticket: slot.ticket,
            build,
            task,
            since: slot.since,
        });
    }
    let mut waiters = Vec::new();
    for entry in waiting.unwrap_or_default() {
        let Some((build, task)) = part_of(app, &entry.key).await? else {
            continue;
        };
        waiters.push(LockWaiter {
            since: entry.stamp.time(),
            ticket: entry.key,
            build,
            task,
        });
    }
    Ok(Some(LockView {
        lock: key.clone(),
        name,
        taken,
        held,
        waiting: waiters,
    }))
}

/// The build, and the task of it, that a ticket is of; `None` if it is gone.
async fn part_of(
    app: &App,
    ticket: &TicketKey,
) -> Result<Option<(BuildRef, Option<TaskName>)>, StoreError> {
    let facts = app.store.ticket_facts(ticket).await?;
    Ok(facts.and_then(|facts| match facts.about {
        About::Build { build, task } => Some((build, task)),
        // Errands hold no locks.
        About::Errand { .. } => None,
    }))
}

/// What holds up tickets of the queue, each lock looked at once.
#[derive(Default)]
pub(super) struct Blocks(HashMap<LockKey, LockBlock>);

impl Blocks {
    /// What a ticket waits for.
    pub(super) async fn of(
        &mut self,
        app: &App,
        blocked: &Blocked,
    ) -> Result<LockBlock, StoreError> {
        if let Some(known) = self.0.get(&blocked.lock) {
            return Ok(known.clone());
        }
        let mut held_by = Vec::new();
        for slot in app.store.lock_holders(&blocked.lock, MAX_NAMED).await? {
            let holder = part_of(app, &slot.ticket).await?;
            held_by.extend(holder.map(|(build, _)| build));
        }
        let block = LockBlock {
            lock: blocked.name.clone(),
            held_by,
        };
        self.0.insert(blocked.lock.clone(), block.clone());
        Ok(block)
    }
}
