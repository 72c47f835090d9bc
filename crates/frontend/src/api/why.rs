//! Why a build waits, or why it ended as it did.
//!
//! Owns the gathering of what `model::why` has to know: the build, and what this frontend sees of its
//! tickets in the queue.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use distci_model::capability::Capability;
use distci_model::id::{BuildKey, JobId};
use distci_model::why::{QueueFacts, Queued, Reason, why};
use distci_model::wire::{About, LockBlock, Problem};
use distci_store::StoreError;

use super::builds::find;
use super::locks::Blocks;
use crate::app::App;
use crate::board;
use crate::error::ApiError;

/// Why a build waits, or why it ended as it did, in sentences: the first is about the build.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/why", tag = "builds",
    responses((status = 200, body = Vec<Reason>), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
) -> Result<Json<Vec<Reason>>, ApiError> {
    let build = find(&app, job, &selector).await?;
    let key = app.store.build_key(&build).await?;
    let queue = queue_of(&app, &key).await?;
    let view = app.store.build(&build).await?;
    Ok(Json(why(&view, &queue, app.now())))
}

/// What this frontend sees of a build's tickets in the queue.
async fn queue_of(app: &App, build: &BuildKey) -> Result<QueueFacts, StoreError> {
    let mut facts = QueueFacts::default();
    let mut blocks = Blocks::default();
    for queued in app.board.queued_of(build) {
        // Claimed since it was listed.
        let Some(ticket) = app.store.ticket_facts(&queued.entry.key).await? else {
            continue;
        };
        let blocked = match &ticket.blocked {
            Some(blocked) => Some(in_words(&blocks.of(app, blocked).await?)),
            None => None,
        };
        let known = Queued {
            waiting: queued.workers,
            busy: busy(app, &queued),
            seen: app.seen.offering(&queued.requires),
            worlds: worlds(app, &queued),
            blocked,
        };
        match ticket.about {
            About::Build { task: None, .. } => facts.control = Some(known),
            About::Build {
                task: Some(task), ..
            } => drop(facts.tasks.insert(task, known)),
            About::Errand { .. } => {}
        }
    }
    Ok(facts)
}

fn in_words(block: &LockBlock) -> String {
    let holders: Vec<String> = block.held_by.iter().map(ToString::to_string).collect();
    match holders.as_slice() {
        [] => format!("lock {:?} has just become free", block.lock),
        holders => format!("lock {:?} is held by {}", block.lock, holders.join(", ")),
    }
}

/// The images and drivers that there are, for who asks for one.
fn worlds(app: &App, queued: &board::Queued) -> Vec<Capability> {
    let is_world = |one: &Capability| matches!(one, Capability::Image(_) | Capability::Driver(_));
    if queued.requires.iter().any(is_world) {
        return app.seen.worlds().into_iter().collect();
    }
    Vec::new()
}

/// How many workers hold claims of tickets that require the same.
fn busy(app: &App, queued: &board::Queued) -> usize {
    let claims = app.leases.all();
    let same = claims
        .iter()
        .filter(|claim| claim.class == queued.entry.class);
    let workers: BTreeSet<&str> = same.map(|claim| claim.worker.as_str()).collect();
    workers.len()
}
