//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use std::fmt::Debug;

use distci_model::build::{Archived, Build, Wishes};
use distci_model::ticket::{IndexName, Ticket};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Card;
use crate::coordination::NodePath;
use crate::jobs::{JobNode, Numbers};
use crate::keys;
use crate::transaction::{pack, unpack};

/// Of the name of a node: nobody of this version wrote it, or we would write it just so.
///
/// # Panics
/// If it does not.
pub fn stored_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // No listing brings any other.
    let is_one = NodePath::parse(&format!("/{text}")).is_ok_and(|path| path.name() == text);
    if !is_one || text.is_empty() {
        return;
    }
    if let Some(entry) = keys::parse_queue(&text) {
        assert_eq!(keys::index(&IndexName::Queue(entry)).name(), text);
    }
    if let Some(marker) = keys::parse_claim(&text) {
        assert_eq!(keys::index(&IndexName::Claim(marker)).name(), text);
    }
    if let Some(due) = keys::parse_due(&text) {
        assert_eq!(keys::index(&IndexName::Due(due)).name(), text);
    }
    if let Some(slot) = keys::parse_slot(&text) {
        assert_eq!(keys::slot(&slot).name(), text);
    }
    if let Some(order) = keys::parse_drain(&text) {
        assert_eq!(keys::drain(&order).name(), text);
    }
    if let Some((mark, job)) = keys::parse_watcher(&text) {
        assert_eq!(keys::watcher(mark, &job).name(), text);
    }
}

/// Of the record in a node: it is no record, or what it says can be written and read again as the same.
///
/// # Panics
/// If it does not.
pub fn record(data: &[u8]) {
    is_itself::<Ticket>(data);
    is_itself::<Build>(data);
    is_itself::<Archived>(data);
    is_itself::<Wishes>(data);
    is_itself::<JobNode>(data);
    is_itself::<Numbers>(data);
    is_itself::<Card>(data);
}

fn is_itself<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    let path = NodePath::root();
    let Ok(record) = unpack::<T>(&path, data) else {
        return;
    };
    let again = pack(&path, &record).and_then(|bytes| unpack::<T>(&path, &bytes));
    let (told, again) = (format!("{record:?}"), format!("{again:?}"));
    assert_eq!(again, format!("Ok({told})"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use distci_hostile::rounds;
    use distci_model::Timestamp;
    use distci_model::config::JobConfig;
    use distci_model::id::RequestId;

    use super::*;
    use crate::blobs::Blobs;
    use crate::coordination::Coordination;
    use crate::coordination::simulator::{Faults, Simulator};
    use crate::{Expected, Store};

    /// The nodes of a store with a job and a build: what is written today.
    async fn nodes() -> Vec<(NodePath, Vec<u8>)> {
        let now = || Timestamp::from_second(1_700_000_000).unwrap();
        let simulator = Simulator::new(1, Faults::none(), Arc::new(now));
        let session: Arc<dyn Coordination> = Arc::new(simulator.session());
        let store = Store::new(session.clone(), Blobs::memory());
        let file = r#"{ "job_id": "j", "parameters": { "p": { "default": "x" } },
            "tasks": [{ "type": "execute-shell", "name": "a", "params": { "script": "true" } }] }"#;
        let job = JobConfig::parse(file).unwrap();
        store.set_job(&job, Expected::Any, now()).await.unwrap();
        let request = RequestId::derive("fuzz");
        store
            .post_build(&job.job_id, &request, &BTreeMap::new(), now())
            .await
            .unwrap();
        let (mut found, mut left) = (Vec::new(), keys::trees());
        while let Some(dir) = left.pop() {
            for name in session.list(&dir).await.unwrap() {
                let path = dir.join(&name);
                let node = session.get(&path).await.unwrap().unwrap();
                found.push((path.clone(), node.data.to_vec()));
                left.push(path);
            }
        }
        found
    }

    #[tokio::test]
    async fn stored_names_hold_for_any_bytes() {
        let nodes = nodes().await;
        let names: Vec<&[u8]> = nodes
            .iter()
            .map(|(path, _)| path.name().as_bytes())
            .collect();
        let queued = names.iter().filter(|name| {
            std::str::from_utf8(name).is_ok_and(|name| keys::parse_queue(name).is_some())
        });
        assert_eq!(queued.count(), 1, "the build's ticket is queued");
        let due = format!("1700000000000.{}.{}.5", "a".repeat(16), "b".repeat(16));
        let claim = format!(
            "{}.{}.2.t.abcdefgh.0123abcd.abcdefgh.{}.x",
            "a".repeat(16),
            "b".repeat(16),
            "c".repeat(10)
        );
        let slot = format!("{}.7", "a".repeat(16));
        let drain = "1700000000000.w-*";
        let more = [&due, &claim, &slot, drain].map(str::as_bytes);
        let names = [names, more.to_vec()].concat();
        rounds(&names, &[".", "+", "0", "x", "c", "t"], 50_000, stored_name);
    }

    #[tokio::test]
    async fn records_hold_for_any_bytes() {
        let nodes = nodes().await;
        let records: Vec<&[u8]> = nodes.iter().map(|(_, data)| &**data).collect();
        let words = ["null", "[]", "{}", "\"\"", ",", "\"state\":", "true"];
        rounds(&records, &words, 10_000, record);
    }

    #[test]
    fn a_record_that_would_fill_the_memory_is_refused() {
        let bomb = zstd::encode_all(&*vec![b' '; 64 << 20], 1).unwrap();
        assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
        let refused = unpack::<Build>(&NodePath::root(), &bomb).unwrap_err();
        assert!(format!("{refused:?}").contains("too large"), "{refused:?}");
    }
}
