//! Bodies in files in memory, which the kernel sends without a copy.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// The size of a page of memory, in bytes. A file takes whole pages.
const PAGE: usize = 4096;

/// Memory of the kernel for each file, in bytes.
const FILE_OVERHEAD: usize = 2048;

/// A body in a file in memory, whose content and length never change.
///
/// The kernel sends pages of the file, not copies of them, until the client has acknowledged them.
/// So a file is never used for another body.
#[derive(Debug)]
pub struct BodyFile {
    file: OwnedFd,
    length: usize,
    /// Returns the file's part of the limits.
    _share: FileShare,
}

impl BodyFile {
    /// Returns the length of the body in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the memory that the file takes, in bytes.
    pub fn size(&self) -> usize {
        size_of_file(self.length)
    }
}

#[cfg(test)]
impl BodyFile {
    /// Returns a body file that counts towards no limits. `file` need not contain a body.
    pub(crate) fn from_file(file: OwnedFd, length: usize) -> Self {
        Self { file, length, _share: FileShare::new(&BodyFiles::new(0, 0), 0) }
    }
}

impl AsFd for BodyFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The open body files of a node, and their limits.
///
/// A file counts until it is closed, also if its response has left the store and a client still
/// receives it.
#[derive(Debug)]
pub struct BodyFiles {
    max_count: usize,
    max_bytes: u64,
    count: AtomicUsize,
    bytes: AtomicU64,
    is_in_turn: AtomicBool,
}

impl BodyFiles {
    /// Allows this many files, and this many bytes of memory for all of them.
    pub fn new(max_count: usize, max_bytes: u64) -> Arc<Self> {
        let (count, bytes, is_in_turn) = Default::default();
        Arc::new(Self { max_count, max_bytes, count, bytes, is_in_turn })
    }

    /// Returns the number of open files.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Returns the memory that all open files take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Returns a turn to create one file for a body of this length. `None` if the file would exceed
    /// a limit, or while another file is being created.
    ///
    /// One file at a time leaves the other cores to requests. The next hit tries again.
    #[inline]
    pub fn turn(self: &Arc<Self>, length: usize) -> Option<FileTurn> {
        let size = size_of_file(length) as u64;
        let has_room = self.count() < self.max_count && self.bytes() + size <= self.max_bytes;
        let is_free = has_room && !self.is_in_turn.load(Relaxed);
        (is_free && !self.is_in_turn.swap(true, Relaxed)).then(|| FileTurn(Arc::clone(self)))
    }
}

/// The right to create a file. While it exists, no other file is created.
#[derive(Debug)]
pub struct FileTurn(Arc<BodyFiles>);

impl FileTurn {
    /// Creates a file for this body, which has the length for which the turn was given. Copies the
    /// body.
    ///
    /// # Errors
    /// Fails if the system has no sealed files in memory, no descriptor or no memory left.
    pub fn create(&self, body: &[u8]) -> io::Result<BodyFile> {
        let share = FileShare::new(&self.0, size_of_file(body.len()) as u64);
        Ok(BodyFile { file: sealed_file(body)?, length: body.len(), _share: share })
    }
}

impl Drop for FileTurn {
    fn drop(&mut self) {
        self.0.is_in_turn.store(false, Relaxed);
    }
}

/// The part that one file has of the limits.
#[derive(Debug)]
struct FileShare {
    files: Arc<BodyFiles>,
    bytes: u64,
}

impl FileShare {
    fn new(files: &Arc<BodyFiles>, bytes: u64) -> Self {
        files.count.fetch_add(1, Relaxed);
        files.bytes.fetch_add(bytes, Relaxed);
        Self { files: Arc::clone(files), bytes }
    }
}

impl Drop for FileShare {
    fn drop(&mut self) {
        self.files.count.fetch_sub(1, Relaxed);
        self.files.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

fn size_of_file(length: usize) -> usize {
    length.next_multiple_of(PAGE) + FILE_OVERHEAD
}

/// Creates a file in memory with this content, which can no longer be changed.
#[cfg(target_os = "linux")]
fn sealed_file(content: &[u8]) -> io::Result<OwnedFd> {
    use rustix::{
        fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
        io::Errno,
    };

    let (name, flags) = ("larder-body", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    // Hardened systems require files that cannot be executed. Linux before 6.3 has none.
    let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        file => file?,
    };
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

#[cfg(not(target_os = "linux"))]
fn sealed_file(_content: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    const BODY: &[u8] = &[b'x'; 2 * PAGE];

    fn create(files: &Arc<BodyFiles>) -> Option<BodyFile> {
        files.turn(BODY.len())?.create(BODY).ok()
    }

    #[test]
    fn what_a_file_contains_never_changes() {
        let file = create(&BodyFiles::new(1, 1 << 20)).unwrap();
        let mut file = File::from(file.as_fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(1).is_err() && file.set_len(1 << 20).is_err());
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        assert!(file.write_all(b"other").is_err());
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, BODY);
        let seals = rustix::fs::SealFlags::SEAL;
        assert!(rustix::fs::fcntl_get_seals(&file).unwrap().contains(seals));
    }

    #[test]
    fn files_count_until_they_are_closed() {
        let files = BodyFiles::new(2, 1 << 20);
        let first = create(&files).unwrap();
        let second = create(&files).unwrap();
        assert!(create(&files).is_none(), "no third file");
        assert_eq!((files.count(), files.bytes()), (2, 2 * first.size() as u64));
        drop(first);
        assert!(create(&files).is_some());
        drop(second);
        assert_eq!((files.count(), files.bytes()), (0, 0));
        let files = BodyFiles::new(100, 3 * (BODY.len() + FILE_OVERHEAD) as u64);
        let created: Vec<_> = std::iter::from_fn(|| create(&files)).collect();
        assert_eq!(created.len(), 3, "their memory is limited");
        assert!(BodyFiles::new(0, 1 << 20).turn(1).is_none());
    }

    #[test]
    fn files_are_created_one_at_a_time() {
        let files = BodyFiles::new(9, 1 << 20);
        let turn = files.turn(1).unwrap();
        assert!(files.turn(1).is_none());
        drop(turn);
        assert!(files.turn(1).is_some());
    }
}
