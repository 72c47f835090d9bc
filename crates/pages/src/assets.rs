//! The style, the scripts and the pictures that pages refer to.
//!
//! Owns their addresses, which name their content: what is at an address never changes, so a browser
//! asks once.

use std::sync::LazyLock;

use crate::state::State;

/// A file that pages refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// The style of all pages.
    Style,
    /// Puts moments into the reader's zone, and keeps "3 min ago" true.
    Times,
    /// Filters a list while one types.
    Filter,
    /// Keeps an open page true.
    Live,
    /// Shows a whole console, however long.
    Console,
    /// Checks a job file while it is written.
    Edit,
    /// Signs a reader in who brings a pass.
    SignIn,
    /// The picture in the tab of what has no state.
    Plain,
    /// The same of success,
    Success,
    /// of failure and fault,
    Failure,
    /// of what runs,
    Running,
    /// and of what waits or asks.
    Waiting,
}

/// Where each asset is, in the order of [`Asset::ALL`].
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| Asset::ALL.map(Asset::address).to_vec());

impl Asset {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 12] = [
        Self::Style,
        Self::Times,
        Self::Filter,
        Self::Live,
        Self::Console,
        Self::Edit,
        Self::SignIn,
        Self::Plain,
        Self::Success,
        Self::Failure,
        Self::Running,
        Self::Waiting,
    ];

    /// The asset at an address.
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asset| asset.path() == path)
    }

    /// Its address: `/assets/style-0123456789abcdef.css`.
    pub fn path(self) -> &'static str {
        PATHS.get(self as usize).map_or("", String::as_str)
    }

    /// Its content.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Style => include_bytes!("../assets/style.css"),
            Self::Times => include_bytes!("../assets/times.js"),
            Self::Filter => include_bytes!("../assets/filter.js"),
            Self::Live => include_bytes!("../assets/live.js"),
            Self::Console => concat!(
                include_str!("../assets/folds.js"),
                include_str!("../assets/console.js")
            )
            .as_bytes(),
            Self::Edit => include_bytes!("../assets/edit.js"),
            Self::SignIn => include_bytes!("../assets/sign-in.js"),
            Self::Plain => include_bytes!("../assets/plain.svg"),
            Self::Success => include_bytes!("../assets/success.svg"),
            Self::Failure => include_bytes!("../assets/failure.svg"),
            Self::Running => include_bytes!("../assets/running.svg"),
            Self::Waiting => include_bytes!("../assets/waiting.svg"),
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self.extension() {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        }
    }

    /// The picture in the tab of a page about something that stands like this.
    pub(crate) fn favicon(state: State) -> Self {
        match state {
            State::Success => Self::Success,
            State::Failure | State::Fault => Self::Failure,
            State::Running => Self::Running,
            State::Waiting | State::Asking => Self::Waiting,
            State::Cancelled | State::Skipped | State::None => Self::Plain,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Times => "times",
            Self::Filter => "filter",
            Self::Live => "live",
            Self::Console => "console",
            Self::Edit => "edit",
            Self::SignIn => "sign-in",
            Self::Plain => "plain",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Style => "css",
            Self::Times | Self::Filter | Self::Live | Self::Console | Self::Edit | Self::SignIn => {
                "js"
            }
            Self::Plain | Self::Success | Self::Failure | Self::Running | Self::Waiting => "svg",
        }
    }

    fn address(self) -> String {
        let hash = blake3::hash(self.bytes()).to_hex();
        let (name, extension) = (self.name(), self.extension());
        format!("/assets/{name}-{}.{extension}", &hash[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asset_is_at_its_own_address() {
        for asset in Asset::ALL {
            assert_eq!(Asset::at(asset.path()), Some(asset));
        }
        assert_eq!(Asset::at("/assets/style.css"), None);
        assert_eq!(Asset::at(""), None);
    }

    #[test]
    fn what_a_page_needs_besides_itself_is_small() {
        let all: usize = Asset::ALL.iter().map(|asset| asset.bytes().len()).sum();
        assert!(all < 60_000, "{all} bytes");
    }
}
