//! One call as it is sent: what a retry sends again.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use distci_model::wire::MAX_WAIT;
use reqwest::Method;
use serde::Serialize;

use crate::ClientError;
use crate::path::Path;

/// A request without the frontend that it goes to.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: Path,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    /// How long a frontend may hold it before it answers.
    pub(crate) held: Duration,
    /// Whether the answer may lead to the blob store.
    pub(crate) direct: bool,
}

/// What a request carries.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Nothing,
    Bytes(Bytes),
    /// Read anew by every try.
    File {
        path: PathBuf,
        bytes: u64,
    },
}

impl Call {
    pub(crate) fn get(path: Path) -> Self {
        Self::of(Method::GET, path)
    }

    pub(crate) fn post(path: Path) -> Self {
        Self::of(Method::POST, path)
    }

    pub(crate) fn put(path: Path) -> Self {
        Self::of(Method::PUT, path)
    }

    pub(crate) fn delete(path: Path) -> Self {
        Self::of(Method::DELETE, path)
    }

    fn of(method: Method, path: Path) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: Body::Nothing,
            held: Duration::ZERO,
            direct: false,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, value: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        Ok(self.bytes("application/json", body.into()))
    }

    pub(crate) fn bytes(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.body = Body::Bytes(body);
        self.header("content-type", content_type)
    }

    /// Sends the file at `path`, as it is now.
    pub(crate) async fn file(mut self, path: &std::path::Path) -> Result<Self, ClientError> {
        let bytes = tokio::fs::metadata(path).await?.len();
        let path = path.to_owned();
        self.body = Body::File { path, bytes };
        Ok(self.header("content-type", "application/octet-stream"))
    }

    /// Asks to be led to the blob store.
    pub(crate) fn direct(mut self) -> Self {
        self.direct = true;
        self.path = self.path.with("direct", true);
        self
    }

    /// Lets the frontend hold the call until there is news, for whole seconds.
    pub(crate) fn held(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs().min(MAX_WAIT);
        self.held = Duration::from_secs(seconds);
        if seconds > 0 {
            self.path = self.path.with("wait", seconds);
        }
        self
    }
}
