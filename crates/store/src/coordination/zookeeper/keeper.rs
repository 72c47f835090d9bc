//! The task that keeps a session usable.
//!
//! Owns the return after every loss: watches again, catch up, and only then open the line. Never
//! gives up but when the servers refuse our credentials. Invariant: the line is opened only after
//! every watch was registered and a quorum has answered on the same connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zookeeper_client::Error;

use super::feed::{Feed, News};
use super::session::{self, OpenError};
use super::{REPLY, Settings};

/// How long to wait before trying again what has just failed: long enough not to press an ensemble
/// that is electing, short enough not to be noticed after it.
const PAUSE: Duration = Duration::from_millis(200);

/// Opens the line for the first time.
pub(super) async fn begin(settings: &Settings, feed: &Feed) -> Result<(), OpenError> {
    match restore(feed).await {
        Ok(()) => Ok(()),
        Err(error) => Err(OpenError::from_request(settings, &settings.chroot, error)),
    }
}

/// Keeps the line open until the servers refuse our credentials.
pub(super) async fn keep(settings: Arc<Settings>, feed: Arc<Feed>) {
    loop {
        match feed.news().await {
            News::Back => {
                if let Err(error) = restore(&feed).await {
                    tracing::warn!(%error, "the connection to ZooKeeper is back but not usable");
                    sleep(PAUSE).await;
                }
            }
            News::Ended => match session::open(&settings).await {
                Ok(session) => feed.renew(session),
                Err(error @ OpenError::Authentication { .. }) => {
                    tracing::error!(%error, "there is no new session with ZooKeeper");
                    return feed.fence();
                }
                Err(error) => {
                    tracing::warn!(%error, "there is no new session with ZooKeeper yet");
                    sleep(PAUSE).await;
                }
            },
            News::Refused => {
                tracing::error!("ZooKeeper does not accept our credentials any more");
                return feed.fence();
            }
        }
    }
}

/// Registers the watches on the present connection, catches up and opens the line. If another loss
/// comes between, the feed tells of it by itself.
async fn restore(feed: &Feed) -> Result<(), Error> {
    let Some(return_) = feed.begin_return() else {
        return Ok(());
    };
    match timeout(REPLY, session::catch_up(&return_.client)).await {
        Ok(caught_up) => caught_up?,
        Err(_) => return Err(Error::Timeout),
    }
    feed.finish_return(&return_)
}
