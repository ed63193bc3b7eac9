//! The keeper: a background thread that keeps segment files ready, gives back what is not needed, and watches the disk. I/O: disk.
//!
//! Nothing here is on anybody's way: what fails is logged and tried again at the next round.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::hot::millis;
use super::shared::Shared;

/// Rounds come at least this often.
const ROUND: Duration = Duration::from_millis(500);

/// Runs until it is told to stop.
pub(super) fn run(shared: &Arc<Shared>) {
    while wait(shared) {
        round(shared);
    }
}

fn wait(shared: &Shared) -> bool {
    let mut orders = shared.orders.lock();
    if !orders.woken && !orders.stop {
        shared.keeper.wait_for(&mut orders, ROUND);
    }
    orders.woken = false;
    !orders.stop
}

/// One round; also called before the spool opens.
pub(super) fn round(shared: &Arc<Shared>) {
    let steps: [(&str, io::Result<()>); 3] = [
        ("free space", watch_space(shared)),
        ("give back segments", give_back(shared)),
        ("make segments ready", make_ready(shared)),
    ];
    for (step, result) in steps {
        if let Err(error) = result {
            tracing::warn!(%error, step, "the spool's keeper failed; it will try again");
        }
    }
    measure(shared);
}

fn watch_space(shared: &Shared) -> io::Result<()> {
    let free = shared.storage.free_bytes()?;
    shared.set_disk_full(free < shared.options.free_space_min);
    Ok(())
}

/// Makes free files, zero-filled, until enough wait.
pub(super) fn make_ready(shared: &Shared) -> io::Result<()> {
    let bytes = shared.options.segment_bytes;
    while shared.free.lock().names.len() < shared.options.segments_ahead {
        if shared.storage.free_bytes()? < shared.options.free_space_min + bytes {
            return Ok(());
        }
        let name = shared.free.lock().fresh_name();
        let file = shared.storage.create(&name)?;
        if let Err(error) = file.preallocate(bytes) {
            shared.storage.remove(&name)?;
            return Err(error);
        }
        shared.storage.sync_dir()?;
        shared.free.lock().names.push(name);
    }
    Ok(())
}

/// Segments with nothing needed in them become free files, or go. Each is durable before the next, because a segment may hold
/// the ends of messages whose bodies stand in an older one.
fn give_back(shared: &Shared) -> io::Result<()> {
    loop {
        let free = {
            let state = shared.state.lock();
            let limit = if state.indexed { state.checkpoint } else { u32::MAX };
            state.segments.free_one(limit).map(|generation| (generation, state.segments.0[&generation].name.clone()))
        };
        let Some((generation, name)) = free else { return Ok(()) };
        let reuse = {
            let state = shared.state.lock();
            let segment = &state.segments.0[&generation];
            !segment.poisoned && segment.file_bytes == shared.options.segment_bytes
        };
        let enough = shared.free.lock().names.len() >= 2 * shared.options.segments_ahead;
        if reuse && !enough {
            let fresh = shared.free.lock().fresh_name();
            shared.storage.rename(&name, &fresh)?;
            shared.storage.sync_dir()?;
            shared.state.lock().segments.0.remove(&generation);
            shared.free.lock().names.push(fresh);
        } else {
            shared.storage.remove(&name)?;
            shared.storage.sync_dir()?;
            shared.state.lock().segments.0.remove(&generation);
        }
    }
}

fn measure(shared: &Shared) {
    let meters = &shared.meters;
    let state = shared.state.lock();
    for kind in super::queue::ItemState::ALL {
        meters.items.with_label_values(&[kind.name()]).set(state.table.counts.items[kind as usize] as i64);
    }
    let poisoned = state.segments.poisoned().len() as i64;
    meters.segments.with_label_values(&["poisoned"]).set(poisoned);
    meters.segments.with_label_values(&["live"]).set(state.segments.0.len() as i64 - poisoned);
    meters.segments.with_label_values(&["free"]).set(shared.free.lock().names.len() as i64);
    meters.file_bytes.set(state.segments.file_bytes() as i64);
    meters.live_bytes.set(state.segments.live_bytes() as i64);
    meters.index_lag.set(state.changed.len() as i64);
    let oldest = state.table.ids_from(0).next().map_or(0, |id| millis(SystemTime::now()).saturating_sub(id >> 20));
    meters.oldest_seconds.set((oldest / 1000) as i64);
    drop(state);
    meters.submissions.set(shared.submissions.len() as i64);
}
