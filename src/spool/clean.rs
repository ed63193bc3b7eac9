//! Copying forward: what is still needed of a mostly dead segment is written again, so that its file can go. I/O: disk.
//!
//! Bounds the disk: all segments together hold at most about twice what lives, plus some. One segment at a time, and the next
//! only when the last one's file is gone, because the copies' segment alone keeps the originals from living again.

use std::io;
use std::sync::mpsc;

use super::committer::{Copied, Work};
use super::hot;
use super::payload::{self, Dead};
use super::record::Kind;
use super::recover::{Found, walk};
use super::shared::Shared;
use super::state::State;
use super::table::{Message, Place};
use crate::base::id::QueueId;

/// Files may hold this many times what lives …
const SPACE_FACTOR: u64 = 2;
/// … plus this many segments: enough that a busy, empty queue never copies.
const SPACE_SEGMENTS: u64 = 6;
/// Copies on their way at once.
const COPIES_MAX: usize = 64;
/// Bytes of copies on their way at once.
const COPY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What one segment still says.
#[derive(Default)]
struct Needed {
    bodies: Vec<(u64, Place)>,
    restate: Vec<u64>,
    dead: Vec<u64>,
}

/// Copies one segment forward, if the files hold too much.
pub(super) fn copy_forward(shared: &Shared) -> io::Result<()> {
    let Some((generation, needed)) = choose(shared)? else { return Ok(()) };
    let mut flow = Flow::new(shared);
    for (id, place) in needed.bodies {
        let copied = {
            let state = shared.state.lock();
            if state.table.find(id).map(Message::place) != Some(place) {
                continue;
            }
            let segment = &state.segments.0[&generation];
            (segment.file.clone(), segment.seal)
        };
        let (_, meta, content) = match hot::read_record(&copied.0, copied.1, place) {
            Ok(read) => read,
            // It stays where it is, and so does the segment: a delivery attempt will hold it.
            Err(error) => {
                tracing::error!(id = %QueueId(id), %error, segment = generation, "a queued message can't be copied forward");
                shared.state.lock().segments.0.get_mut(&generation).expect("it is being copied").damaged = true;
                continue;
            }
        };
        let work = Copied { id, from: place, meta, content };
        flow.send(Work::Copy(Box::new(work)), place.bytes)?;
    }
    for id in needed.restate {
        flow.send(Work::Restate(id), 0)?;
    }
    let bodies: Vec<u32> = {
        let state = shared.state.lock();
        let known = state.segments.0[&generation].ends.keys();
        known.filter(|body| state.segments.get(**body).is_some()).copied().collect()
    };
    for ids in needed.dead.chunks(16 * 1024).filter(|_| !bodies.is_empty()) {
        flow.send(Work::Dead(Dead { ids: ids.to_vec(), bodies: bodies.clone() }), 0)?;
    }
    flow.finish()?;
    let mut state = shared.state.lock();
    let segment = state.segments.0.get_mut(&generation).expect("only the keeper takes segments away");
    if !segment.damaged {
        segment.acts = 0;
        segment.ends.clear();
        segment.copied = true;
    }
    Ok(())
}

fn choose(shared: &Shared) -> io::Result<Option<(u32, Needed)>> {
    let (generation, file, seal, bytes) = {
        let state = shared.state.lock();
        let slack = SPACE_SEGMENTS * shared.options.segment_bytes;
        let most = (SPACE_FACTOR * state.segments.live_bytes()).max(state.segments.live_bytes() + slack);
        if state.segments.file_bytes() <= most || state.segments.0.values().any(|segment| segment.copied) {
            return Ok(None);
        }
        let Some(generation) = state.segments.emptiest(state.keep_from()) else { return Ok(None) };
        let segment = &state.segments.0[&generation];
        (generation, segment.file.clone(), segment.seal, segment.bytes)
    };
    let mut records = Vec::new();
    walk(&*file, seal, bytes.into(), false, &mut |found| records.push(found))?;
    let state = shared.state.lock();
    let mut needed = Needed::default();
    records.iter().for_each(|found| note(&state, generation, found, &mut needed));
    needed.dead.sort_unstable();
    needed.dead.dedup();
    needed.restate.sort_unstable();
    needed.restate.dedup();
    Ok(Some((generation, needed)))
}

fn note(state: &State, generation: u32, found: &Found, needed: &mut Needed) {
    let r = &mut super::codec::Reader(&found.meta);
    let mut mention = |id: u64, restate: bool| match state.table.find(id) {
        None => needed.dead.push(id),
        Some(message) if restate || message.state_segment == generation => needed.restate.push(id),
        Some(_) => {}
    };
    match found.header.kind {
        Kind::Accepted | Kind::Moved => {
            let id = super::message::read_index(r).map_or(0, |part| part.id);
            let place = found.place(generation);
            match state.table.find(id).map(Message::place) {
                Some(live) if live == place => needed.bodies.push((id, place)),
                // The original may still be on disk, if copying its segment was cut short.
                None if found.header.kind == Kind::Moved => needed.dead.push(id),
                _ => {}
            }
        }
        Kind::Attempt => drop(payload::read_attempt(r).map(|attempt| mention(attempt.id, false))),
        Kind::State => drop(r.fixed().map(|id| mention(id, false))),
        Kind::Admin => {
            let set = payload::read_act(r).map(|(_, _, _, set)| set).unwrap_or_default();
            set.iter().flat_map(|(_, ids)| ids).for_each(|id| mention(*id, true));
        }
        Kind::Dead => {
            let dead = payload::read_dead(r).map(|dead| dead.ids).unwrap_or_default();
            dead.into_iter().for_each(|id| mention(id, false));
        }
        Kind::Segment | Kind::Discarded => {}
    }
}

/// Work on its way to the committer, so much at once.
struct Flow<'a> {
    shared: &'a Shared,
    sender: mpsc::Sender<bool>,
    receiver: mpsc::Receiver<bool>,
    open: usize,
    open_bytes: u64,
}

impl<'a> Flow<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (sender, receiver) = mpsc::channel();
        Flow { shared, sender, receiver, open: 0, open_bytes: 0 }
    }

    fn send(&mut self, work: Work, bytes: u64) -> io::Result<()> {
        let sender = self.sender.clone();
        self.shared.submissions.submit(work, Box::new(move |result| sender.send(result.is_ok()).unwrap_or(())));
        self.open += 1;
        self.open_bytes += bytes;
        if self.open >= COPIES_MAX || self.open_bytes >= COPY_BYTES_MAX { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open_bytes = 0;
        for _ in 0..std::mem::take(&mut self.open) {
            if self.receiver.recv() != Ok(true) {
                return Err(io::Error::other("the committer did not take a copy"));
            }
        }
        Ok(())
    }
}
