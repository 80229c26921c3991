//! Outputs that are written in place: block and character devices.

use super::*;

/// A block device over a file, where this user may make one.
pub(super) struct LoopDevice {
    pub(super) path: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl LoopDevice {
    pub(super) fn new(content: &[u8]) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file.path())
            .output();
        match made {
            Ok(made) if made.status.success() => {
                let path = String::from_utf8(made.stdout).unwrap().trim().into();
                Some(Self { path, _file: file })
            }
            failed => {
                eprintln!("skipped: no loop device can be made here: {failed:?}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

#[test]
fn a_block_device_gets_the_input_and_keeps_what_lies_beyond_it() {
    let setup = Setup::new(5000);
    for direct in [false, true] {
        let Some(device) = LoopDevice::new(&[0xaa; 8192]) else {
            return;
        };
        let options = OutputOptions {
            direct,
            fsync: true,
            ..OutputOptions::default()
        };
        let output = OutputFile::create(&device.path, &setup.input, options).unwrap();
        assert_eq!(output.block_size(), Some(512));
        let as_input = InputFile::open(&device.path, false).unwrap();
        assert_eq!(as_input.block_size(), Some(512));
        copy(&output, 5000).unwrap();
        output.commit().unwrap();
        let stored = fs::read(&device.path).unwrap();
        assert_eq!(stored[..5000], content(5000));
        assert_eq!(stored[5000..], [0xaa; 3192]);
        drop(output);
    }
}

#[test]
fn a_block_device_that_is_too_small_is_refused_untouched() {
    let setup = Setup::new(5000);
    let Some(device) = LoopDevice::new(&[0xaa; 4608]) else {
        return;
    };
    let error =
        OutputFile::create(&device.path, &setup.input, OutputOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("it has 4608 bytes, and 5000 are to be written"),
        "{error}"
    );
    assert_eq!(fs::read(&device.path).unwrap(), [0xaa; 4608]);
}

#[test]
fn a_block_device_is_an_input_of_its_size_and_not_its_own_output() {
    let Some(device) = LoopDevice::new(&content(4608)) else {
        return;
    };
    let input = InputFile::open(&device.path, false).unwrap();
    assert_eq!(input.len(), 4608);
    let error = OutputFile::create(&device.path, &input, OutputOptions::default()).unwrap_err();
    assert!(
        matches!(error, FileError::Distinct(DistinctError::SameFile { .. })),
        "{error}"
    );
}

#[test]
fn the_null_device_is_written_in_place() {
    let setup = Setup::new(700);
    let options = OutputOptions {
        direct: false,
        fsync: true,
        ..OutputOptions::default()
    };
    let output = OutputFile::create(Path::new("/dev/null"), &setup.input, options).unwrap();
    copy(&output, 700).unwrap();
    assert_eq!(read(&output, 0, 512).unwrap(), [0; 512]);
    output.commit().unwrap();
    assert!(output.placing().is_none());
}

#[test]
fn a_device_that_is_full_is_reported_with_file_and_offset() {
    let setup = Setup::new(700);
    let output = OutputFile::create(
        Path::new("/dev/full"),
        &setup.input,
        OutputOptions::default(),
    )
    .unwrap();
    let error = write(&output, 512, &[0; 512]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(
        error
            .to_string()
            .contains("/dev/full at offset 512: No space left"),
        "{error}"
    );
    assert_eq!(output.bytes_written(), 0);
}

#[test]
fn a_terminal_is_refused() {
    let setup = Setup::new(700);
    let path = Path::new("/dev/ptmx");
    if fs::File::open(path).is_err() {
        eprintln!("skipped: no terminal can be made here");
        return;
    }
    let error = OutputFile::create(path, &setup.input, OutputOptions::default()).unwrap_err();
    assert!(error.to_string().contains("it is a terminal"), "{error}");
}
