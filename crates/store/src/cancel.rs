//! Cancelling builds.
//!
//! Owns the cancel flag. The flag and the ring that tells of it are one commit; stopping the tasks
//! is build control's.

use distci_model::Timestamp;
use distci_model::build::Build;
use distci_model::id::{BuildKey, BuildRef};
use serde::{Deserialize, Serialize};

use crate::builds::Found;
use crate::error::StoreError;
use crate::keys;
use crate::store::Store;
use crate::transaction::{Transaction, Tried, encode, read, until_done};

/// That a build is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub(crate) struct CancelFlag {
    /// Since when.
    pub(crate) at: Timestamp,
    /// What wants it, if that is no person.
    pub(crate) by: Option<String>,
}

/// The flag as its node holds it: a mere time, if a person asked.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Asked(Timestamp),
    Caused { at: Timestamp, by: String },
}

impl From<Written> for CancelFlag {
    fn from(written: Written) -> Self {
        match written {
            Written::Asked(at) => Self { at, by: None },
            Written::Caused { at, by } => Self { at, by: Some(by) },
        }
    }
}

impl From<CancelFlag> for Written {
    fn from(flag: CancelFlag) -> Self {
        let at = flag.at;
        match flag.by {
            None => Self::Asked(at),
            Some(by) => Self::Caused { at, by },
        }
    }
}

impl Store {
    /// Asks to cancel a build.
    ///
    /// # Idempotence
    /// A second time, or after its end, nothing changes.
    pub async fn cancel_build(&self, id: &BuildRef, at: Timestamp) -> Result<(), StoreError> {
        until_done!(self.coordination, async {
            let job = self.read_job_as_seen(&id.job).await?;
            if let Found::Archived(_) = self.find_build_as_seen(&job, id).await? {
                return Ok(Tried::Done(()));
            }
            let key = BuildKey::derive(&job.key, id.number);
            let mut transaction = Transaction::default();
            let flag = CancelFlag { at, by: None };
            if !self.cancel_in(&mut transaction, &key, flag).await? {
                return Ok(Tried::Done(()));
            }
            let committed = transaction.commit(&*self.coordination).await?;
            Ok(if committed.is_some() {
                Tried::Done(())
            } else {
                Tried::Again
            })
        })
    }

    /// Adds the cancellation of a build to a commit; `false` if there is nothing to cancel any more,
    /// as far as could be seen.
    pub(crate) async fn cancel_in(
        &self,
        transaction: &mut Transaction,
        build: &BuildKey,
        flag: CancelFlag,
    ) -> Result<bool, StoreError> {
        let path = keys::cancel_flag(build);
        let anchor = read::<Build>(&*self.coordination, &keys::build(build)).await?;
        if anchor.is_none() || self.coordination.get(&path).await?.is_some() {
            return Ok(false);
        }
        let data = encode(path.as_str(), &flag)?;
        transaction.create(path, data);
        transaction.ring(&*self.coordination, build).await?;
        Ok(true)
    }

    /// Whether a build is to be cancelled, and why.
    pub(crate) async fn cancel_flag(
        &self,
        build: &BuildKey,
    ) -> Result<Option<CancelFlag>, StoreError> {
        let flag = read(&*self.coordination, &keys::cancel_flag(build)).await?;
        Ok(flag.map(|flag| flag.record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_reads_what_it_and_earlier_versions_write() {
        let at = Timestamp::UNIX_EPOCH;
        for by in [None, Some("superseded by j#2".to_owned())] {
            let flag = CancelFlag { at, by };
            let text = serde_json::to_string(&flag).unwrap();
            assert_eq!(serde_json::from_str::<CancelFlag>(&text).unwrap(), flag);
        }
        let earlier: CancelFlag = serde_json::from_str(r#""1970-01-01T00:00:00Z""#).unwrap();
        assert_eq!(earlier, CancelFlag { at, by: None });
    }
}
