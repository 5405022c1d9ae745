//! Programs: what is decided once (`layout`), what is recorded once (`record`), and what happens at each run (`run`).

mod layout;
mod record;
mod run;
mod timer;

pub(crate) use record::Program;
pub(crate) use run::{RecordedProgram, Submissions};
