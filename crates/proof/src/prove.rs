//! Carries out a proof: a world is explored wholly, twice, and what was found is told.
//!
//! Owns the verdict. The checker looks for a state in which a law is broken, by the shortest way; the
//! walk looks for one from which the builds cannot be finished. Both must have met as many states.

use std::fmt;

use stateright::{Checker, HasDiscoveries, Model};

use crate::cluster::{Cluster, LAWS};
use crate::defect::Defect;
use crate::reach::walk;
use crate::setup::Setup;
use crate::state::Action;
use crate::worlds::World;

/// A world in which every law holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// Its name.
    pub name: &'static str,
    /// In how many states it may be,
    pub states: usize,
    /// with how many steps between them,
    pub steps: usize,
    /// and how many to the farthest.
    pub depth: usize,
    /// In how many of them everything is finished.
    pub finished: usize,
    /// How many different trees the store held.
    pub trees: usize,
}

impl fmt::Display for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            states,
            steps,
            depth,
            finished,
            trees,
        } = self;
        write!(
            f,
            "{name:28} {states:>9} states {steps:>9} steps, {depth} deep, finished in {finished}"
        )?;
        if *trees > 0 {
            write!(f, "; {trees} trees")?;
        }
        Ok(())
    }
}

/// A law that is broken, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// In which world.
    pub name: &'static str,
    /// Which law.
    pub law: &'static str,
    /// What happened, one step a line.
    pub way: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} after {} steps",
            self.name,
            self.law,
            self.way.len()
        )?;
        for step in &self.way {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

/// The law that no state is a dead end.
pub const FINISHES: &str = "a build can never be finished";
/// What a world must show, or its proof proves nothing.
pub const VACUOUS: &str = "nothing ever happens in this world";
/// Two explorations of one world have met the same states.
pub const UNEQUAL: &str = "two explorations have met different spaces";

/// Explores a world.
///
/// # Errors
/// The law that does not hold in it.
pub fn prove(world: &World) -> Result<Proved, Box<Broken>> {
    let cluster = Cluster::new(world.setup.clone());
    let broken = |law, way: &[Action]| Broken {
        name: world.name,
        law,
        way: way.iter().map(|action| cluster.words(action)).collect(),
    };
    let states = check(&cluster).map_err(|(law, way)| broken(law, &way))?;
    let walked = walk(&cluster, |state| cluster.is_finished(state));
    if let Some(way) = walked.way {
        return Err(broken(FINISHES, &way).into());
    }
    if walked.states != states {
        return Err(broken(UNEQUAL, &[]).into());
    }
    Ok(Proved {
        name: world.name,
        states,
        steps: walked.steps,
        depth: walked.depth,
        finished: walked.goals,
        trees: cluster.trees(),
    })
}

/// Lets the checker look for a broken law; gives the number of states if there is none.
fn check(cluster: &Cluster) -> Result<usize, (&'static str, Vec<Action>)> {
    let search = cluster.clone().checker();
    let checked = search
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    if let Some(found) = checked.discovery(LAWS) {
        let law = found.last_state().broken.unwrap_or_default();
        return Err((law, found.into_actions()));
    }
    for shown in cluster.properties() {
        if shown.name != LAWS && checked.discovery(shown.name).is_none() {
            return Err((VACUOUS, Vec::new()));
        }
    }
    Ok(checked.unique_state_count())
}

/// Looks for the law that a planted defect breaks in a world; `None` if the world does not show it.
pub fn find(defect: Defect, world: &World) -> Option<Broken> {
    let setup = Setup {
        defect: Some(defect),
        ..world.setup.clone()
    };
    let cluster = Cluster::new(setup);
    let (law, way) = check(&cluster).err()?;
    let way = way.iter().map(|action| cluster.words(action)).collect();
    let name = world.name;
    Some(Broken { name, law, way })
}
