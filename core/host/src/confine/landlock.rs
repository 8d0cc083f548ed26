//! Landlock: which files, connections and processes are within reach.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use reunion_model::plugin::Needs;

use super::files::{self, Given};
use super::report::{ABI_RENAME, ABI_SCOPES};

/// Whatever a folder is given for: nothing may be run, linked symbolically, or made that is no file or folder.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const RUN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});
const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});

/// What the kernel made of what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// All of it.
    Whole,
    /// Less, though by its version it has all of it.
    Less,
}

/// The version of the kernel's Landlock, or why there is none.
pub(super) fn detect() -> Result<i32, String> {
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: with this flag the call reads and changes nothing, and answers with the version.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    if answer > 0 {
        return i32::try_from(answer).map_err(|error| error.to_string());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no Landlock: Linux 5.13 has, where it is built in".into(),
        Some(libc::EOPNOTSUPP) => "Landlock is off: name landlock in lsm= on the kernel's command line".into(),
        _ => format!("Landlock cannot be asked for: {error}"),
    })
}

/// Keeps this thread, and those that it starts, to these files and to the network that the plugin needs.
pub(super) fn keep_to(given: &[Given], needs: &Needs, abi: i32) -> io::Result<Hold> {
    restrict(needs, abi, given).map_err(io::Error::other)
}

fn restrict(needs: &Needs, abi: i32, given: &[Given]) -> Result<Hold, RulesetError> {
    // All that this kernel can refuse, and only that: the report says what follows from it.
    let abi = ABI::from(abi);
    let mut handled = AccessFs::from_all(abi);
    if needs.network {
        // Databases listen at sockets that have a path.
        handled.remove(AccessFs::ResolveUnix);
    }
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(handled)?;
    let net = AccessNet::from_all(abi);
    if !needs.network && !net.is_empty() {
        ruleset = ruleset.handle_access(net)?;
    }
    let scopes = Scope::from_all(abi);
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes)?;
    }
    let mut ruleset = ruleset.create()?;
    for Given { path, how } in given {
        let access = match how {
            files::How::Read => READ,
            files::How::Run => RUN,
            files::How::Write => WRITE,
            files::How::Device => DEVICE,
        };
        ruleset = give(ruleset, path, access & handled, abi)?;
    }
    finish(ruleset)
}

/// Puts this thread, and those that it starts, into a domain that takes nothing but the way to processes outside:
/// their memory and, from ABI 6 on, signals to them. On ABI 1 a domain would forbid to move files from folder to
/// folder, and there is none.
pub(super) fn stand_apart(abi: i32) -> io::Result<Hold> {
    let ruleset = || -> Result<Hold, RulesetError> {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
        if abi >= ABI_SCOPES {
            return finish(ruleset.scope(Scope::Signal)?.create()?);
        }
        // A ruleset must take something. Nobody makes block devices, and moving is given back.
        let ruleset = ruleset.handle_access(make_bitflags!(AccessFs::{MakeBlock | Refer}))?.create()?;
        finish(give(ruleset, Path::new("/"), AccessFs::Refer.into(), ABI::from(abi))?)
    };
    if abi >= ABI_RENAME { ruleset().map_err(io::Error::other) } else { Ok(Hold::Whole) }
}

/// What cannot be opened is not there for the worker anyway.
fn give(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>, abi: ABI) -> Result<RulesetCreated, RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(ruleset) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
    if access.is_empty() { Ok(ruleset) } else { ruleset.add_rule(PathBeneath::new(file, access)) }
}

fn finish(ruleset: RulesetCreated) -> Result<Hold, RulesetError> {
    let RestrictionStatus { ruleset, .. } = ruleset.restrict_self()?;
    Ok(if ruleset == RulesetStatus::FullyEnforced { Hold::Whole } else { Hold::Less })
}
