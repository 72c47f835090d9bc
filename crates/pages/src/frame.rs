//! What surrounds every page: its head, navigation and foot.

/// Which entry of the navigation a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Home, jobs and builds.
    Jobs,
    /// What waits.
    Queue,
    /// Who works.
    Workers,
    /// What was found in consoles.
    Search,
    /// Frontends and store.
    Cluster,
    /// None of them.
    Elsewhere,
}

impl Place {
    /// The entries of the navigation, with their addresses and names.
    pub(crate) const ENTRIES: [(Self, &'static str, &'static str); 5] = [
        (Self::Jobs, "/", "Jobs"),
        (Self::Queue, "/queue", "Queue"),
        (Self::Workers, "/workers", "Workers"),
        (Self::Search, "/search", "Search"),
        (Self::Cluster, "/cluster", "Cluster"),
    ];
}

/// What every page has to know about who shows it to whom.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where in the navigation the page is.
    pub place: Place,
    /// What a form must bring so that it is known to come from a page of ours; none for a reader who
    /// is not signed in, to whom nothing but the page itself is offered.
    pub csrf: Option<String>,
    /// The version of the program.
    pub version: String,
    /// The frontend that shows it, if the others know it.
    pub frontend: Option<String>,
}

impl Frame {
    /// The entries of the navigation: address, name, and whether the page is there.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let entries = Place::ENTRIES.into_iter();
        entries.map(|(place, address, name)| (address, name, place == self.place))
    }

    /// The same, or nothing, as the value of a form's field.
    pub(crate) fn token(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
    }
}
