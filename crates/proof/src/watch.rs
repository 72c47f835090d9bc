//! A claim that one frontend hears of and another may give up: beats, digests, the barrier.
//!
//! Owns a model of time in turns, of the nodes in which the frontend that hears names the claim, and
//! of the one that watches and may lag behind for as long as it likes. When a claim has lapsed, and
//! for how long what was named can be read, is production's law, `model::lease`. Law: what was named
//! within a lease before the watcher began to ask is not given up (I12).

use std::time::Duration;

use distci_model::lease::{DIGEST, FRESH, TURNS, has_lapsed};
use distci_model::ticket::Duty;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::laws::HEALTHY;
use crate::prove::{Broken, FINISHES, Proved, UNEQUAL};
use crate::reach::walk;
use crate::worlds::Size;

/// The rules by which a claim is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After how many turns what was named is written over.
    pub turns: u32,
    /// Whether the watcher learns all that was named before it gives a claim up.
    pub barrier: bool,
    /// Whether that has to be done within its time.
    pub in_time: bool,
    /// Whether a watcher that was asleep meanwhile begins anew.
    pub awake: bool,
}

impl Rules {
    /// Those of production.
    #[expect(clippy::cast_possible_truncation, reason = "there are few turns")]
    pub const PRODUCTION: Self = Self {
        turns: TURNS as u32,
        barrier: true,
        in_time: true,
        awake: true,
    };
}

/// The watch over one claim.
#[derive(Debug, Clone)]
pub struct Watching {
    /// The rules.
    pub rules: Rules,
    /// How many others come before the watcher.
    pub rank: u32,
    /// How many digests may fail to be written.
    pub misses: u8,
    /// How many turns the watcher may be asleep.
    pub naps: u8,
}

/// The watcher asks for everything that was named before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asked {
    /// How many turns ago.
    turns: u32,
    /// Which of the nodes that it had not read then name the claim, and still do.
    names: u32,
    /// Whether the claim had been named within its lease then.
    fresh: bool,
}

impl Asked {
    /// Whether what was learnt since then is new enough to decide on.
    fn is_in_time(self) -> bool {
        self.turns <= turns(FRESH)
    }
}

/// What the two frontends know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// Whether the claim was heard of in a turn whose digest was not written.
    heard: bool,
    /// Which of the latest turns' nodes name the claim and were not read by the watcher; the lowest
    /// bit is the latest. To read one that does not name it changes nothing, so none of those is
    /// kept in mind.
    names: u32,
    /// How many turns ago the claim was named last.
    named: u32,
    /// How many turns ago the watcher was told last, by its own clock.
    silent: u32,
    /// What it is waiting for before it gives the claim up.
    asked: Option<Asked>,
    misses: u8,
    naps: u8,
    /// Whether it has given the claim up,
    pub given_up: bool,
    /// and that was wrong.
    pub wrongly: bool,
}

/// What may happen to a claim and its watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A turn passes.
    Turn {
        /// Whether the worker's beat is heard in it.
        beat: bool,
        /// Whether the digest was written.
        written: bool,
        /// Whether the watcher is asleep all the time.
        asleep: bool,
    },
    /// The watcher reads the oldest digest that names the claim, and all before it.
    Read,
    /// The watcher loses the store, and learns anew which claims there are.
    Gap,
    /// The watcher finds that the claim has lapsed, and asks for all that was named before.
    Ask,
    /// The watcher gives up asking, for it took too long or it was asleep.
    Abandon,
    /// The watcher has learnt all that was named, and decides.
    Decide,
}

/// A time in turns.
#[expect(clippy::cast_possible_truncation, reason = "a lease has few turns")]
const fn turns(time: Duration) -> u32 {
    time.as_secs().div_ceil(DIGEST.as_secs()) as u32
}

impl Watching {
    /// From here on one turn more makes no difference.
    fn most(&self) -> u32 {
        turns(Duty::Task.lease()) + self.rank + 1
    }

    fn lapsed(&self, silent: u32) -> bool {
        has_lapsed(Duty::Task.lease(), DIGEST * silent, self.rank)
    }

    fn mask(&self) -> u32 {
        (1 << self.rules.turns) - 1
    }

    /// The nodes a turn later: the one that was written longest ago is the next.
    fn turned(&self, nodes: u32) -> u32 {
        let last = nodes >> (self.rules.turns - 1);
        ((nodes << 1) & self.mask()) | last
    }

    fn turn(&self, state: &Watched, beat: bool, (written, asleep): (bool, bool)) -> Watched {
        let most = self.most();
        let heard = state.heard || beat;
        let later = |turns: u32| (turns + 1).min(most);
        let mut next = Watched {
            names: self.turned(state.names),
            named: later(state.named),
            silent: if asleep {
                state.silent
            } else {
                later(state.silent)
            },
            heard: heard && !written,
            misses: state.misses - u8::from(!written),
            naps: state.naps - u8::from(asleep),
            ..state.clone()
        };
        if let Some(asked) = &mut next.asked {
            // Who is asleep does not notice that time is up.
            if !asleep {
                asked.turns = (asked.turns + 1).min(turns(FRESH) + 1);
            }
            asked.names = self.turned(asked.names) & !u32::from(written);
        }
        if written {
            next.names = next.names & !1 | u32::from(heard);
            if heard {
                next.named = 0;
            }
        }
        if asleep && self.rules.awake {
            next.asked = None;
        }
        next
    }

    fn read(state: &Watched) -> Option<Watched> {
        let oldest = 1_u32.checked_shl(state.names.checked_ilog2()?)?;
        Some(Watched {
            names: state.names & !oldest,
            // As production has it: who was heard of is spared.
            silent: 0,
            asked: None,
            ..state.clone()
        })
    }

    fn ask(&self, state: &Watched) -> Watched {
        let names = if self.rules.barrier { state.names } else { 0 };
        Watched {
            asked: Some(Asked {
                turns: 0,
                names,
                fresh: state.named <= turns(Duty::Task.lease()),
            }),
            ..state.clone()
        }
    }

    /// Whether the watcher may decide: it has learnt what it asked for, in time.
    fn may_decide(&self, asked: Asked) -> bool {
        asked.names == 0 && (!self.rules.in_time || asked.is_in_time())
    }
}

/// How a turn may pass: with a beat, with a digest, with the watcher asleep.
const WAYS: [(bool, bool, bool); 8] = [
    (true, true, false),
    (false, true, false),
    (true, false, false),
    (false, false, false),
    (true, true, true),
    (false, true, true),
    (true, false, true),
    (false, false, true),
];

impl Model for Watching {
    type State = Watched;
    type Action = Happening;

    fn init_states(&self) -> Vec<Watched> {
        vec![Watched {
            heard: false,
            names: 0,
            named: self.most(),
            silent: 0,
            asked: None,
            misses: self.misses,
            naps: self.naps,
            given_up: false,
            wrongly: false,
        }]
    }

    fn actions(&self, state: &Watched, actions: &mut Vec<Happening>) {
        if state.given_up {
            return;
        }
        // Who sleeps at other times only believes a claim for longer.
        let may_nap = state.naps > 0 && state.asked.is_some();
        for (beat, written, asleep) in WAYS {
            if (written || state.misses > 0) && (!asleep || may_nap) {
                actions.push(Happening::Turn {
                    beat,
                    written,
                    asleep,
                });
            }
        }
        actions.extend((state.names != 0).then_some(Happening::Read));
        actions.push(Happening::Gap);
        match state.asked {
            None => actions.extend(self.lapsed(state.silent).then_some(Happening::Ask)),
            Some(asked) => {
                actions.extend(self.may_decide(asked).then_some(Happening::Decide));
                actions.extend((!asked.is_in_time()).then_some(Happening::Abandon));
            }
        }
    }

    fn next_state(&self, state: &Watched, happening: Happening) -> Option<Watched> {
        Some(match happening {
            Happening::Turn {
                beat,
                written,
                asleep,
            } => self.turn(state, beat, (written, asleep)),
            Happening::Read => Self::read(state)?,
            Happening::Gap => Watched {
                names: 0,
                silent: 0,
                asked: None,
                ..state.clone()
            },
            Happening::Ask => self.ask(state),
            Happening::Abandon => Watched {
                asked: None,
                ..state.clone()
            },
            Happening::Decide => Watched {
                given_up: true,
                wrongly: state.asked?.fresh,
                ..state.clone()
            },
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(HEALTHY, |_: &Self, state: &Watched| !state.wrongly),
            Property::sometimes("a claim is given up", |_: &Self, state: &Watched| {
                state.given_up
            }),
        ]
    }
}

/// Rules that are not enough, with what is wrong about them.
pub const PLANTED: [(&str, Rules); 5] = [
    (
        "digests that are written over after two turns",
        Rules {
            turns: 2,
            ..Rules::PRODUCTION
        },
    ),
    (
        "digests that are written over one turn too early",
        Rules {
            turns: Rules::PRODUCTION.turns - 1,
            ..Rules::PRODUCTION
        },
    ),
    (
        "expiry without a barrier",
        Rules {
            barrier: false,
            ..Rules::PRODUCTION
        },
    ),
    (
        "a barrier that may take any time",
        Rules {
            in_time: false,
            ..Rules::PRODUCTION
        },
    ),
    (
        "a watcher that was asleep during the barrier and does not begin anew",
        Rules {
            awake: false,
            ..Rules::PRODUCTION
        },
    ),
];

/// The watch that a test has time for.
pub const fn small(rules: Rules) -> Watching {
    Watching {
        rules,
        rank: 0,
        misses: 1,
        naps: 3,
    }
}

/// All watches of a size, by production's rules.
pub fn all(size: Size) -> Vec<Watching> {
    let small = small(Rules::PRODUCTION);
    match size {
        Size::Small => vec![small],
        Size::Large | Size::Deep => {
            let misses = 2 + u8::from(size == Size::Deep);
            let ranks = 0..=1;
            let watch = |rank| Watching {
                rank,
                misses,
                ..small.clone()
            };
            ranks.map(watch).collect()
        }
    }
}

/// Explores a watch.
///
/// # Errors
/// The law that does not hold in it.
pub fn prove(watching: &Watching) -> Result<Proved, Box<Broken>> {
    let name = "the watch over a claim";
    let broken = |law, way: Vec<Happening>| Broken {
        name,
        law,
        way: way.iter().map(|step| format!("{step:?}")).collect(),
    };
    let search = watching.clone().checker();
    let search = search.finish_when(HasDiscoveries::AnyFailures);
    let found = search.spawn_bfs().join();
    if let Some(way) = found.discovery(HEALTHY) {
        return Err(broken(HEALTHY, way.into_actions()).into());
    }
    // Whoever is silent can always be given up.
    let walked = walk(watching, |state| state.given_up);
    if let Some(way) = walked.way {
        return Err(broken(FINISHES, way).into());
    }
    if walked.states != found.unique_state_count() {
        return Err(broken(UNEQUAL, Vec::new()).into());
    }
    Ok(Proved {
        name,
        states: walked.states,
        steps: walked.steps,
        depth: walked.depth,
        finished: walked.goals,
        trees: 0,
    })
}
