//! `fantail store`: looks into a directory of durable topics that no server uses.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Failure, Status};
use crate::engine::store::{OpenError, Stored, tools};
use crate::frame::{Forms, Position, Publication};

/// What `store` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read everything, and say whether it is whole
    #[command(after_help = AFTER_HELP)]
    Check(Directory),
    /// Print the publications that can be read, a JSON object a line
    #[command(after_help = AFTER_HELP)]
    Dump(Directory),
    /// Give back the space of what is not kept any more
    #[command(after_help = AFTER_HELP)]
    Compact(Directory),
}

#[derive(Debug, clap::Args)]
struct Directory {
    /// The directory that serve was given with --data-dir
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) const AFTER_HELP: &str = "\
No server may use the directory meanwhile.

Exit status:
  0  done, and the store is whole
  1  it is damaged or can't be read; dump has printed the rest
  2  wrong usage, no store there, or another process uses it";

impl Store {
    /// Does it, and prints what it has found.
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Check(Directory { directory }) => {
                let summary = tools::check(&directory)?;
                let end = match (&summary.cut, summary.is_closed) {
                    (Some(cut), _) => format!("{cut}; the next start cuts that off"),
                    (None, true) => "it was ended in order".to_owned(),
                    (None, false) => "it was not ended in order, and nothing is torn".to_owned(),
                };
                print(&format!(
                    "The store is whole: {end}.\n\n\
                     topics        {}\npublications  {}\nsegments      {}\nbytes         {}\nlive bytes    {}\n\
                     frames        {}\nnewest group  {}\n",
                    summary.topics,
                    summary.publications,
                    summary.segments,
                    summary.log_bytes,
                    summary.live_bytes,
                    summary.frames,
                    summary.group
                ));
                Ok(())
            }
            Action::Dump(Directory { directory }) => {
                let mut skipped = 0;
                let stored = tools::salvage(&directory, |error| {
                    skipped += 1;
                    eprintln!("fantail: skipped: {error}");
                })?;
                dump(io::stdout().lock(), stored)
                    .map_err(|error| Failure::runtime(format!("stdout can't be written: {error}")))?;
                match skipped {
                    0 => Ok(()),
                    _ => Err(Failure::runtime(format!("the store is not whole: {skipped} places could not be read"))),
                }
            }
            Action::Compact(Directory { directory }) => {
                let (before, after) = tools::compact(&directory)?;
                print(&format!("{before} bytes before, {after} bytes now.\n"));
                Ok(())
            }
        }
    }
}

/// Whoever closed stdout wants the exit status alone.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Prints the `message` object of each publication, with its topic's epoch.
fn dump(output: impl Write, stored: Vec<Stored>) -> io::Result<()> {
    let mut output = io::BufWriter::new(output);
    for Stored { topic, epoch, kept, .. } in stored {
        for kept in kept {
            let position = Position { epoch, offset: kept.offset };
            let publication = Publication::new(topic.clone(), position, kept.at_ms, 0, kept.payload, Forms::NONE);
            let mut object = publication.message_object();
            // JSON that was published has line ends between its tokens alone.
            object.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
            let members = object.strip_suffix(b"}").unwrap_or(&object);
            output.write_all(members)?;
            writeln!(output, ",\"epoch\":\"{epoch}\"}}")?;
        }
    }
    output.flush()
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let status = match &error {
            OpenError::InUse { .. } | OpenError::Empty { .. } => Status::Usage,
            OpenError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => Status::Usage,
            _ => Status::Runtime,
        };
        Self { status, ..Self::runtime(error.to_string()) }.with_fix(error.fix())
    }
}
