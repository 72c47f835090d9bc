//! Large bytes straight to and from the blob store.
//!
//! Owns the way beside the frontends: a frontend gives an address that opens one blob, and we go
//! there without our token. Each transfer tries it once; whatever goes wrong there, a frontend is
//! asked instead, and the store is left alone for a while. Invariant: an address is a secret, and
//! is in no log and no error.

use std::path::Path as FilePath;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use distci_model::wire::{MAX_DIRECT, Place};
use reqwest::header::{LOCATION, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::time::{Instant, timeout};

use crate::answer::{cause, passing, stalled};
use crate::call::Call;
use crate::client::{SLOWEST_UPLOAD, THINK, connections, send_file};
use crate::path::Path;
use crate::retry::Trouble;
use crate::{Client, ClientError};

/// Fewer bytes than this are not worth the question where they shall go.
const MIN_DIRECT: u64 = 1024 * 1024;
/// How long the store is left alone after it could not be reached, or was not there.
const AVOID: Duration = Duration::from_mins(1);

/// The way to the blob store.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    /// Made with the first address: it says whether certificates are needed.
    http: OnceLock<Option<reqwest::Client>>,
    avoided_until: Mutex<Option<Instant>>,
}

impl Direct {
    fn is_open(&self) -> bool {
        let until = *self
            .avoided_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() >= until)
    }

    fn avoid(&self) {
        let mut until = self
            .avoided_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *until = Some(Instant::now() + AVOID);
    }

    fn http(&self, address: &Url) -> Result<&reqwest::Client, String> {
        let made = || connections(std::slice::from_ref(address)).ok();
        let http = self.http.get_or_init(made).as_ref();
        http.ok_or_else(|| "there are no certificates".to_owned())
    }
}

impl Client {
    /// Leaves the store alone for a while.
    pub(crate) fn avoid_store(&self) {
        self.store().avoid();
    }

    /// Opens what the call asks for, in the blob store where that goes.
    pub(crate) async fn open_direct(&self, call: &Call) -> Result<Response, ClientError> {
        if !self.store().is_open() {
            return self.open(call).await;
        }
        let response = self.open(&call.clone().direct()).await?;
        if response.status() != StatusCode::TEMPORARY_REDIRECT {
            return Ok(response);
        }
        match self.follow(&response, call).await {
            Ok(response) => Ok(response),
            Err(why) => {
                self.give_up(&why);
                self.open(call).await
            }
        }
    }

    async fn follow(&self, lead: &Response, call: &Call) -> Result<Response, String> {
        let address = lead.headers().get(LOCATION);
        let address = address.and_then(|address| address.to_str().ok());
        let address = parse(address.unwrap_or_default())?;
        let mut request = self.store().http(&address)?.get(address);
        for (name, value) in &call.headers {
            if *name == RANGE.as_str() {
                request = request.header(*name, value);
            }
        }
        send(request, THINK).await
    }

    /// Stores the file in the blob store, if the frontend has a place for it there and it can be
    /// reached. Gives its size.
    pub(crate) async fn upload_direct(
        &self,
        path: &Path,
        file: &FilePath,
    ) -> Result<Option<u64>, ClientError> {
        let bytes = tokio::fs::metadata(file).await?.len();
        if !(MIN_DIRECT..=MAX_DIRECT).contains(&bytes) || !self.store().is_open() {
            return Ok(None);
        }
        let answer = match self
            .answer(&Call::post(path.clone().with("bytes", bytes)))
            .await
        {
            Ok(answer) if answer.status != StatusCode::NO_CONTENT => answer,
            // There are no places, or the frontend is of before there were any.
            Ok(_) | Err(ClientError::Refused(_)) => {
                self.avoid_store();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let place: Place = answer.json()?;
        match self.send_to(&place, file, bytes).await {
            Ok(()) => Ok(Some(bytes)),
            Err(Trouble::Final(error)) => Err(error),
            Err(Trouble::Passing { why, .. }) => {
                self.give_up(&why);
                Ok(None)
            }
        }
    }

    async fn send_to(&self, place: &Place, file: &FilePath, bytes: u64) -> Result<(), Trouble> {
        let away = |why| Trouble::Passing { why, after: None };
        let address = parse(&place.url).map_err(away)?;
        let http = self.store().http(&address).map_err(away)?;
        let request = send_file(http.put(address), file, bytes).await?;
        let limit = THINK + Duration::from_secs(bytes / SLOWEST_UPLOAD);
        send(request, limit).await.map(drop).map_err(away)
    }

    fn give_up(&self, why: &str) {
        self.avoid_store();
        tracing::warn!("the blob store cannot be used from here, frontends carry the bytes: {why}");
    }
}

/// The parse error would not show the address, and neither does this.
fn parse(address: &str) -> Result<Url, String> {
    address.parse().map_err(|error| cause(&error))
}

/// The answer, if it is a good one.
async fn send(request: RequestBuilder, limit: Duration) -> Result<Response, String> {
    let trouble = |trouble| match trouble {
        Trouble::Passing { why, .. } => why,
        Trouble::Final(error) => error.to_string(),
    };
    let answer = timeout(limit, request.send()).await;
    let response = answer
        .map_err(|_| trouble(stalled("answer of the store", limit)))?
        .map_err(|error| trouble(passing(error)))?;
    match response.status() {
        status if status.is_success() => Ok(response),
        // What it says repeats the address.
        status => Err(format!("the store answered {status}")),
    }
}
