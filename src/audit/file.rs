//! A file that rolls: `x.log`, and what was before it zipped as `x.log.1.zip` (newest) to `x.log.N.zip`.
//!
//! It knows nothing of what the lines say and blocks its caller. [`RollingFile`] is its main type.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use zip::{ZipWriter, write::SimpleFileOptions};

/// Appends lines; rolls before the line that would take the file beyond its bound.
pub(super) struct RollingFile {
    path: PathBuf,
    file: File,
    length: u64,
    max_bytes: u64,
    history: usize,
}

impl RollingFile {
    /// Opens (and makes, with its directories) the file and finishes a roll that was interrupted. `max_bytes` bounds a
    /// file of more than one line, `history` the zipped ones; 0 keeps none.
    pub(super) fn open(path: PathBuf, max_bytes: u64, history: usize) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        if rolling(&path).exists() {
            archive(&path, history)?;
        }
        let (file, length) = open_at_end(&path)?;
        Ok(Self { path, file, length, max_bytes, history })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the lines and takes them out of `lines` as they are written. After an error the rest can be tried again:
    /// no line is written twice or by half.
    pub(super) fn append(&mut self, lines: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
        while let Some(first) = lines.front() {
            if self.length > 0 && self.length + first.len() as u64 > self.max_bytes {
                self.roll()?;
            }
            let mut bytes = Vec::new();
            let mut count = 0;
            for line in lines.iter() {
                let total = self.length + (bytes.len() + line.len()) as u64;
                if count > 0 && total > self.max_bytes {
                    break;
                }
                bytes.extend_from_slice(line);
                count += 1;
            }
            self.write(&bytes)?;
            lines.drain(..count);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        if rolling(&self.path).exists() {
            // An earlier roll could not be finished (no space, say): what it holds comes first.
            archive(&self.path, self.history)?;
        }
        fs::rename(&self.path, rolling(&self.path))?;
        (self.file, self.length) = open_at_end(&self.path)?;
        archive(&self.path, self.history)
    }
}

fn open_at_end(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    Ok((file, length))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The full file between its renaming and the end of its zipping.
fn rolling(path: &Path) -> PathBuf {
    suffixed(path, ".rolling")
}

fn archive(path: &Path, history: usize) -> io::Result<()> {
    let full = rolling(path);
    if history > 0 {
        let unfinished = suffixed(path, ".1.zip.unfinished");
        zip_file(&full, &unfinished, path)?;
        for number in (1..history).rev() {
            let from = suffixed(path, &format!(".{number}.zip"));
            if from.exists() {
                fs::rename(from, suffixed(path, &format!(".{}.zip", number + 1)))?;
            }
        }
        fs::rename(unfinished, suffixed(path, ".1.zip"))?;
    }
    fs::remove_file(full)
}

fn zip_file(from: &Path, to: &Path, named: &Path) -> io::Result<()> {
    let mut archive = ZipWriter::new(File::create(to)?);
    let name = named.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    archive.start_file(name, SimpleFileOptions::default().large_file(true)).map_err(io::Error::other)?;
    io::copy(&mut File::open(from)?, &mut archive)?;
    archive.finish().map_err(io::Error::other)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unzipped(path: &Path) -> String {
        let mut archive = zip::ZipArchive::new(File::open(path).expect("there")).expect("a zip");
        let mut text = String::new();
        archive.by_index(0).expect("one file").read_to_string(&mut text).expect("text");
        text
    }

    fn line(number: usize) -> Vec<u8> {
        format!("line {number}\n").into_bytes()
    }

    #[test]
    fn a_full_file_is_zipped_and_the_oldest_one_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log/audit.log");
        let mut file = RollingFile::open(path.clone(), 14, 2).expect("opened");
        for number in 0..7 {
            file.append(&mut [line(number)].into()).expect("written");
        }
        assert_eq!(fs::read_to_string(&path).expect("there"), "line 6\n");
        assert_eq!(unzipped(&suffixed(&path, ".1.zip")), "line 4\nline 5\n");
        assert_eq!(unzipped(&suffixed(&path, ".2.zip")), "line 2\nline 3\n");
        let names = fs::read_dir(directory.path().join("log")).expect("there").count();
        assert_eq!(names, 3);
    }

    #[test]
    fn many_lines_at_once_roll_in_between_and_none_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = RollingFile::open(path.clone(), 14, 9).expect("opened");
        file.append(&mut (0..5).map(line).collect()).expect("written");
        let all = unzipped(&suffixed(&path, ".2.zip"))
            + &unzipped(&suffixed(&path, ".1.zip"))
            + &fs::read_to_string(&path).expect("there");
        assert_eq!(all, "line 0\nline 1\nline 2\nline 3\nline 4\n");
    }

    #[test]
    fn a_line_beyond_the_bound_stands_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = RollingFile::open(path.clone(), 3, 1).expect("opened");
        file.append(&mut [line(0), line(1)].into()).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "line 1\n");
        assert_eq!(unzipped(&suffixed(&path, ".1.zip")), "line 0\n");
    }

    #[test]
    fn an_interrupted_roll_is_finished_and_the_file_is_continued() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        fs::write(rolling(&path), "before\n").expect("written");
        fs::write(&path, "after\n").expect("written");
        let mut file = RollingFile::open(path.clone(), 1000, 5).expect("opened");
        file.append(&mut [line(1)].into()).expect("written");
        assert_eq!(unzipped(&suffixed(&path, ".1.zip")), "before\n");
        assert_eq!(fs::read_to_string(&path).expect("there"), "after\nline 1\n");
        assert!(!rolling(&path).exists());
    }

    #[test]
    fn without_history_nothing_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = RollingFile::open(path, 7, 0).expect("opened");
        file.append(&mut [line(0), line(1)].into()).expect("written");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1);
    }

    #[test]
    fn a_roll_that_fails_is_tried_again_and_no_line_is_lost_or_written_twice() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = RollingFile::open(path.clone(), 14, 5).expect("opened");
        let obstacle = suffixed(&path, ".1.zip.unfinished");
        fs::create_dir(&obstacle).expect("made");
        let mut lines: VecDeque<_> = (0..7).map(line).collect();
        for _ in 0..3 {
            assert!(file.append(&mut lines).is_err());
        }
        fs::remove_dir(&obstacle).expect("removed");
        file.append(&mut lines).expect("written");
        let zipped = |number: usize| unzipped(&suffixed(&path, &format!(".{number}.zip")));
        let all = zipped(3) + &zipped(2) + &zipped(1) + &fs::read_to_string(&path).expect("there");
        assert_eq!(all, (0..7).map(|number| format!("line {number}\n")).collect::<String>());
    }
}
