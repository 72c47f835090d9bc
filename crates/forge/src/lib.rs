//! Forges: what they are told of commits, over their own APIs.
//!
//! Owns the addresses, the tokens and the bodies that GitHub, GitLab, Gitea and Bitbucket expect, and
//! what their answers mean; and the tokens that an app of GitHub draws with its key. Never tries twice and never sees a ticket: whoever holds the errand
//! decides what follows. Invariant: a token is shown to its forge and to nobody else, neither in a log
//! nor in an error.

mod answer;
mod api;
mod app;
mod checks;
mod connection;
mod forge;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod key;
mod said;

pub use answer::Refusal;
pub use api::Kind;
pub use app::{App, Clock};
pub use forge::{Credential, Forge, InvalidForge};
pub use key::{AppKey, InvalidKey};
pub use said::Said;
