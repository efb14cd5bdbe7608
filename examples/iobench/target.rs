//! The file that is read and written.

use crate::backends::Reads;
use crate::content::Content;
use crate::options::Options;
use crate::{Failure, bar};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use tempfile::TempDir;

/// The file, and what must be in it.
pub struct Target {
    file: File,
    /// How many blocks it has.
    pub blocks: u32,
    /// What they hold, if it is looked at.
    pub content: Option<Content>,
    /// For looking at it without `O_DIRECT`.
    plain: Option<File>,
    /// Removed at the end.
    _dir: Option<TempDir>,
}

impl Target {
    /// Opens it, after laying it out if it is this program's.
    pub fn new(options: &Options) -> Result<Self, Failure> {
        let blocks = (options.size / options.bs) as u32;
        if options.backend.reads != Reads::File {
            // Nobody looks into it.
            return Ok(Self { file: tempfile::tempfile()?, blocks, content: None, plain: None, _dir: None });
        }
        if let Some(path) = &options.filename {
            let at = |error: io::Error| Failure::from(format!("{}: {error}", path.display()));
            if !path.try_exists().map_err(at)? || options.overwrite {
                let content = lay_out(options, path)?;
                return Self::open(options, path, None, blocks, Some(content));
            }
            if options.rw.writes() {
                let why = format!(
                    "--rw {} would destroy {}; say so by --overwrite",
                    options.rw.name(),
                    path.display()
                );
                return Err(Failure::Usage(why));
            }
            let file = File::open(path).map_err(at)?;
            let there = file.metadata().map_err(at)?.len() / options.bs;
            if there == 0 {
                return Err(Failure::Usage(format!("{} is shorter than one --bs", path.display())));
            }
            let blocks = u64::from(blocks).min(there) as u32;
            let content = if options.verify {
                Some(Content::sum(&file, options.bs as u32, bar(options, "summing")).map_err(at)?)
            } else {
                None
            };
            return Self::open(options, path, None, blocks, content);
        }
        let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
        let dir = TempDir::with_prefix_in("iobench-", &directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let path = dir.path().join("file");
        let content = lay_out(options, &path)?;
        Self::open(options, &path, Some(dir), blocks, Some(content))
    }

    fn open(
        options: &Options,
        path: &Path,
        dir: Option<TempDir>,
        blocks: u32,
        content: Option<Content>,
    ) -> Result<Self, Failure> {
        let mut how = OpenOptions::new();
        how.read(true).write(options.rw.writes());
        let at = |error| format!("{}: {error}", path.display());
        let plain = Some(how.open(path).map_err(at)?);
        #[cfg(target_os = "linux")]
        if options.direct {
            use std::os::unix::fs::OpenOptionsExt;
            how.custom_flags(libc::O_DIRECT);
        }
        let file = how.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput if options.direct => {
                Failure::Usage(format!("the file system of {} knows no --direct", path.display()))
            }
            _ => at(error).into(),
        })?;
        let content = content.filter(|_| options.verify);
        Ok(Self { file, blocks, content, plain, _dir: dir })
    }

    /// A descriptor of its own for each job: they share the file, not a counter in front of it.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Compares all of it with what must be there. Nobody writes meanwhile.
    pub fn check_all(&self) -> io::Result<()> {
        match (&self.content, &self.plain) {
            (Some(content), Some(file)) => content.check_all(file),
            _ => Ok(()),
        }
    }
}

fn lay_out(options: &Options, path: &Path) -> Result<Content, Failure> {
    let made = Content::make(path, options.size, options.bs as u32, bar(options, "laying out"));
    made.map_err(|error| format!("{} could not be laid out: {error}", path.display()).into())
}
