//! What every implementation of [`Coordination`] must do, as tests.
//!
//! An implementation joins with one line: `contract!(open);`, where `open` returns a future of
//! a [`Subject`] whose tree is empty. A law is a function below and a line in the macro.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use super::{
    CommitError, ConflictKind, Coordination, Event, Expect, Life, Node, NodePath, Op, Receipt,
    Version, Watch,
};

mod nodes;
mod watches;

pub(crate) use nodes::*;
pub(crate) use watches::*;

/// An empty store and what must outlive it.
pub(crate) struct Subject {
    pub(crate) store: Arc<dyn Coordination>,
    pub(crate) dir: Option<tempfile::TempDir>,
}

/// Makes a test of each law for the implementation that `open` opens.
macro_rules! contract {
    ($open:path) => {
        $crate::coordination::contract::contract! { @each $open;
            a_missing_node_is_nothing
            a_new_node_has_its_data_and_version_zero
            a_node_holds_any_bytes
            creating_what_exists_conflicts
            a_set_raises_the_version_by_one
            a_set_of_another_version_conflicts
            a_set_of_any_version_takes_the_present_one
            a_set_of_a_missing_node_conflicts
            a_deleted_node_is_gone
            a_delete_of_another_version_conflicts
            a_delete_of_a_missing_node_conflicts
            a_node_with_children_is_not_deleted
            a_node_made_anew_begins_at_version_zero
            a_check_refuses_another_version
            a_check_of_a_missing_node_conflicts
            a_check_changes_nothing
            a_conflict_undoes_the_whole_commit
            a_conflict_names_the_first_refused_step
            a_step_sees_the_steps_before_it
            a_directory_is_emptied_and_deleted_in_one_commit
            a_node_is_replaced_in_one_commit
            an_empty_commit_has_a_receipt
            a_receipt_has_a_version_for_each_step
            two_missing_parents_are_made
            a_made_parent_is_a_plain_node
            an_existing_parent_is_left_alone
            a_refused_commit_makes_no_parents
            nothing_is_created_below_a_session_node
            a_session_node_is_read_and_written_like_any_other
            a_missing_directory_lists_nothing
            a_listing_shows_direct_children_in_order
            a_listing_follows_commits
            the_root_is_a_directory_without_a_node
            too_many_steps_are_refused
            too_many_bytes_are_refused
            limits_come_before_conflicts
            a_watch_tells_what_happened_in_order
            a_watch_tells_of_every_depth_but_not_of_itself
            a_watch_of_the_root_tells_of_everything
            a_watch_tells_nothing_from_before_it
            a_refused_commit_and_a_check_are_not_told
            the_steps_of_a_commit_are_told_in_their_order
            events_are_queued_before_the_receipt
            every_watch_hears
            a_dropped_watch_disturbs_nobody
            a_dropped_wait_takes_no_event
            a_waiting_watch_wakes
            an_overflowing_watch_begins_with_a_gap
            a_read_on_an_event_finds_what_it_tells
            of_many_writers_of_one_version_one_wins
            concurrent_increments_lose_nothing
            concurrent_creates_are_all_there
            store_time_never_goes_back
            whoever_writes_alone_learns_the_time
            a_working_store_is_connected
            catching_up_changes_nothing
        }
    };
    (@each $open:path; $($law:ident)*) => {
        $(
            #[tokio::test]
            async fn $law() {
                let subject = $open().await;
                $crate::coordination::contract::$law(&*subject.store).await;
                drop(subject.store);
                drop(subject.dir);
            }
        )*
    };
}
pub(crate) use contract;

type Store<'a> = &'a dyn Coordination;

pub(crate) fn path(text: &str) -> NodePath {
    NodePath::parse(text).unwrap()
}

pub(crate) fn create(at: &str, data: &'static str) -> Op {
    Op::Create {
        path: path(at),
        data: Bytes::from_static(data.as_bytes()),
        life: Life::Durable,
    }
}

pub(crate) fn create_for_session(at: &str) -> Op {
    Op::Create {
        path: path(at),
        data: Bytes::new(),
        life: Life::Session,
    }
}

pub(crate) fn set(at: &str, data: &'static str, expect: Expect) -> Op {
    Op::Set {
        path: path(at),
        data: Bytes::from_static(data.as_bytes()),
        expect,
    }
}

pub(crate) fn delete(at: &str) -> Op {
    Op::Delete {
        path: path(at),
        expect: Expect::Any,
    }
}

fn check(at: &str, version: u32) -> Op {
    Op::Check {
        path: path(at),
        version: Version(version),
    }
}

const fn exactly(version: u32) -> Expect {
    Expect::Exactly(Version(version))
}

pub(crate) async fn commit(store: Store<'_>, ops: impl Into<Vec<Op>>) -> Receipt {
    store.commit(ops.into()).await.unwrap()
}

async fn versions(store: Store<'_>, ops: impl Into<Vec<Op>>) -> Vec<u32> {
    commit(store, ops)
        .await
        .versions
        .into_iter()
        .map(|version| version.0)
        .collect()
}

async fn refusal(store: Store<'_>, ops: impl Into<Vec<Op>>) -> (usize, ConflictKind) {
    match store.commit(ops.into()).await {
        Err(CommitError::Conflict { index, kind }) => (index, kind),
        other => panic!("no conflict but {other:?}"),
    }
}

pub(crate) async fn get(store: Store<'_>, at: &str) -> Option<(Vec<u8>, u32)> {
    let node = store.get(&path(at)).await.unwrap();
    node.map(|Node { data, version }| (data.to_vec(), version.0))
}

fn node(data: &str, version: u32) -> (Vec<u8>, u32) {
    (data.as_bytes().to_vec(), version)
}

pub(crate) async fn list(store: Store<'_>, at: &str) -> Vec<String> {
    store.list(&path(at)).await.unwrap()
}

pub(crate) fn queued(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

fn created(at: &str) -> Event {
    Event::Created(path(at))
}

fn changed(at: &str) -> Event {
    Event::Changed(path(at))
}

fn deleted(at: &str) -> Event {
    Event::Deleted(path(at))
}
