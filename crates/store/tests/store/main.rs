//! The typed store as its callers see it: its laws over the embedded store and over the simulator
//! with hostile faults.

mod artifacts;
mod builds;
mod consoles;
mod drains;
mod errands;
mod events;
mod fsck;
mod history;
mod job_files;
mod jobs;
mod journals;
mod laws;
mod limits;
mod locks;
mod meta;
mod migrate;
mod scene;
mod schedules;
mod test_reports;
mod timers;
mod wishes;
