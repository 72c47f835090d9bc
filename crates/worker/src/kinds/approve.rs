//! The kind `approve`, which is people's and not a worker's.

use async_trait::async_trait;
use distci_model::config::Approve;
use distci_model::outcome::{Failure, TaskResult};

use super::{Assignment, Perform};
use crate::trouble::Trouble;

#[async_trait]
impl Perform for Approve {
    /// Build control posts no ticket for it, so nobody gets here but by another version's order.
    async fn perform(&self, _: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        let detail = "no worker can approve".to_owned();
        Err(Failure::Configuration { detail }.into())
    }
}
