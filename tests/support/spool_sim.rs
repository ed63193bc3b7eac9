//! A disk that forgets: what was not synced may be lost or torn at a power cut, and any call may fail.

#![allow(clippy::unwrap_used, dead_code)] // Test code.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use weir::spool::storage::{Mapped, Storage, StoredFile};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    None,
    /// The nth call fails, once.
    Once(usize, i32),
    /// The nth call and all behind it fail; with it also what a power cut at that point looks like.
    Forever(usize, i32),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    live: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

struct World {
    files: Vec<File>,
    names: HashMap<String, usize>,
    durable_names: HashMap<String, usize>,
    calls: usize,
    trouble: Trouble,
    random: fastrand::Rng,
}

#[derive(Clone)]
pub struct Sim(Arc<Mutex<World>>);

struct Handle {
    sim: Sim,
    number: usize,
}

impl Sim {
    pub fn new(trouble: Trouble, seed: u64) -> Self {
        Sim(Arc::new(Mutex::new(World {
            files: Vec::new(),
            names: HashMap::new(),
            durable_names: HashMap::new(),
            calls: 0,
            trouble,
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// The disk as it is found after the power comes back.
    pub fn power_cut(&self) -> Sim {
        let mut world = self.0.lock().unwrap();
        let mut random = world.random.fork();
        let names = if random.bool() { world.names.clone() } else { world.durable_names.clone() };
        let survive = |file: &File, random: &mut fastrand::Rng| {
            let mut bytes = file.durable.clone();
            for (offset, piece) in &file.pending {
                let kept = match random.u8(..3) {
                    0 => 0,
                    1 => piece.len(),
                    _ => random.usize(..=piece.len()),
                };
                put(&mut bytes, *offset, &piece[..kept]);
            }
            File { durable: bytes.clone(), live: bytes, pending: Vec::new() }
        };
        let files = world.files.iter().map(|file| survive(file, &mut random)).collect();
        Sim(Arc::new(Mutex::new(World {
            files,
            durable_names: names.clone(),
            names,
            calls: 0,
            trouble: Trouble::None,
            random,
        })))
    }

    /// Changes a byte of every file whose name ends so; `at` is a fraction of its length.
    pub fn flip(&self, suffix: &str, random: &mut fastrand::Rng) -> usize {
        let mut world = self.0.lock().unwrap();
        let numbers: Vec<usize> =
            world.names.iter().filter(|(name, _)| name.ends_with(suffix)).map(|(_, number)| *number).collect();
        let number = numbers[random.usize(..numbers.len())];
        let file = &mut world.files[number];
        let written = file.live.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
        let at = random.usize(..written);
        file.live[at] ^= 1 << random.u8(..8);
        file.durable[at] = file.live[at];
        at
    }

    fn call(&self) -> io::Result<std::sync::MutexGuard<'_, World>> {
        let mut world = self.0.lock().unwrap();
        world.calls += 1;
        match world.trouble {
            Trouble::Once(at, errno) if world.calls == at => Err(io::Error::from_raw_os_error(errno)),
            Trouble::Forever(at, errno) if world.calls >= at => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(world),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, piece: &[u8]) {
    if bytes.len() < offset + piece.len() {
        bytes.resize(offset + piece.len(), 0);
    }
    bytes[offset..offset + piece.len()].copy_from_slice(piece);
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for Sim {
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let world = self.call()?;
        let number = *world.names.get(name).ok_or_else(missing)?;
        Ok(Arc::new(Handle { sim: self.clone(), number }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut world = self.call()?;
        world.files.push(File::default());
        let number = world.files.len() - 1;
        world.names.insert(name.into(), number);
        Ok(Arc::new(Handle { sim: self.clone(), number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.call()?;
        let number = world.names.remove(from).ok_or_else(missing)?;
        world.names.insert(to.into(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?.names.remove(name).map(|_| ()).ok_or_else(missing)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.call()?.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.call()?;
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl StoredFile for Handle {
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        let result = self.sim.call().map(|_| ());
        let mut world = self.sim.0.lock().unwrap();
        // A write that fails may have done part of its work.
        let kept = if result.is_ok() { bytes.len() } else { world.random.usize(..=bytes.len()) };
        let file = &mut world.files[self.number];
        put(&mut file.live, offset as usize, &bytes[..kept]);
        file.pending.push((offset as usize, bytes[..kept].to_vec()));
        result
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let world = self.sim.call()?;
        let live = &world.files[self.number].live;
        let from = (offset as usize).min(live.len());
        let read = buffer.len().min(live.len() - from);
        buffer[..read].copy_from_slice(&live[from..from + read]);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.sim.call()?.files[self.number].live.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.sim.call()?;
        let file = &mut world.files[self.number];
        file.durable = file.live.clone();
        file.pending.clear();
        Ok(())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.sim.call()?;
        let file = &mut world.files[self.number];
        file.live = vec![0; bytes as usize];
        file.durable = file.live.clone();
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.preallocate(bytes)
    }

    fn map(&self, offset: u64, bytes: usize) -> io::Result<Mapped> {
        let mut copy = vec![0; bytes];
        self.read_at(offset, &mut copy)?;
        Ok(Arc::new(copy))
    }
}
