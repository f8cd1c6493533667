//! The store of durable topics: opened before anybody is served, ended when the last worker has.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::ServeError;
use super::supervisor::Happened;
use crate::engine::store::{self, Port, Stored};
use crate::io::EventBell;
use crate::worker::Shared;

/// What a worker is home of: its way to the store, and what that holds.
pub(super) type Share = (Port, Vec<Stored>);

/// Opens the store and starts its thread, which ends when all workers have dropped their shares.
///
/// # Errors
/// [`ServeError::Store`] and [`ServeError::Thread`].
pub(super) fn begin(
    directory: &Path,
    shared: &Arc<Shared<EventBell>>,
    tell: Sender<Happened>,
) -> Result<(Vec<Share>, JoinHandle<()>), ServeError> {
    let (store, stored) = store::open(directory)?;
    let topics = stored.len();
    let mut shares: Vec<Vec<Stored>> = (0..shared.workers()).map(|_| Vec::new()).collect();
    for stored in stored {
        shares[shared.home_of(stored.topic.as_str())].push(stored);
    }
    let publications: usize = shares.iter().flatten().map(|stored| stored.kept.len()).sum();
    tracing::info!(directory = %directory.display(), topics, publications, "the store is open");
    let bells = Arc::clone(shared);
    let (ports, inbox) = store::ports(shares.len(), move |worker| bells.wake(worker));
    // Nobody listens any more when the server has ended first.
    let ended = move || {
        let _ = tell.send(Happened::StoreEnded);
    };
    let thread = store.spawn(inbox, shared.store_metrics(), ended).map_err(ServeError::Thread)?;
    Ok((ports.into_iter().zip(shares).collect(), thread))
}
