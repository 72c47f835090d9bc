//! Calls about artifacts, for their readers.

use distci_model::id::BuildRef;
use distci_model::wire::ArtifactView;

use crate::builds::build_path;
use crate::call::Call;
use crate::{Client, ClientError, Download};

impl Client {
    /// The artifacts of a build.
    pub async fn artifacts(&self, build: &BuildRef) -> Result<Vec<ArtifactView>, ClientError> {
        let call = Call::get(build_path(build, &["artifacts"]));
        self.answer(&call).await?.json()
    }

    /// The content of an artifact.
    pub async fn artifact(&self, build: &BuildRef, path: &str) -> Result<Download, ClientError> {
        let mut rest = vec!["artifacts"];
        rest.extend(path.split('/'));
        Download::start(self.clone(), Call::get(build_path(build, &rest))).await
    }
}
