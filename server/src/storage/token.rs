//! The token of a node that is about to join: what the cluster knows it by until the marker says who it is.
//!
//! It is written before the cluster is asked, and deleted once there is a marker. A node that dies between the two asks
//! again with the same token, and is given the id that it was given before; a directory that was emptied has another.

use std::fs;
use std::io;
use std::path::Path;

use super::OpenError;
use super::marker::{remove, write_whole};

/// Name of the file in the data directory.
pub(super) const TOKEN_FILE: &str = "kelda.joining";
/// Its name while it is written.
pub(super) const TOKEN_TEMPORARY: &str = "kelda.joining.new";
/// Digits of a token.
const TOKEN_DIGITS: usize = 32;

/// Reads the token of a data directory; `None` if there is none. Blocks.
pub fn read_token(dir: &Path) -> Result<Option<String>, OpenError> {
    let path = dir.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let token = text.trim();
            let is_token =
                token.len() == TOKEN_DIGITS && token.bytes().all(|it| it.is_ascii_hexdigit());
            if is_token {
                Ok(Some(token.to_owned()))
            } else {
                let detail = "it is no token: delete it, if the node has never started".to_owned();
                Err(OpenError::Corrupt { path, detail })
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Writes the token, all of it or nothing, durably. Blocks.
pub fn write_token(dir: &Path, token: &str) -> Result<(), OpenError> {
    let text = format!("{token}\n");
    let written = write_whole(dir, TOKEN_FILE, TOKEN_TEMPORARY, text.as_bytes());
    written.map_err(|source| OpenError::Io {
        path: dir.join(TOKEN_FILE),
        source,
    })
}

/// Deletes the token, if there is one. Blocks.
pub fn delete_token(dir: &Path) -> Result<(), OpenError> {
    remove(&dir.join(TOKEN_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_until_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_token(dir.path()).unwrap(), None);
        let token = "0123456789abcdef".repeat(2);
        write_token(dir.path(), &token).unwrap();
        assert_eq!(read_token(dir.path()).unwrap(), Some(token));
        assert!(!dir.path().join(TOKEN_TEMPORARY).exists());
        for _ in 0..2 {
            delete_token(dir.path()).unwrap();
        }
        assert_eq!(read_token(dir.path()).unwrap(), None);
        fs::write(dir.path().join(TOKEN_FILE), "x").unwrap();
        let error = read_token(dir.path()).unwrap_err();
        assert!(error.to_string().contains(TOKEN_FILE), "{error}");
    }
}
