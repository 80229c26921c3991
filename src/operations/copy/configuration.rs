//! What the guest of a copy is told before it touches a disk.

use guest_protocol::{DataList, DeviceConfig, FrameError, VmmConfig};

use crate::config::{
    Config, DEFAULT_REQUEST_SIZE, ProgressPercent, Protocol, SectorSize, Sparse, Transport,
};
use crate::files::{InputFile, ListBounds};
use crate::operations::ports::configuration_frame;

/// What the guest is told of the input beside its sector size.
#[derive(Clone, Debug)]
pub struct InputFacts {
    /// Its length in bytes.
    pub length: u64,
    /// Where it may have data.
    pub data: DataList<'static>,
    /// Whether the list leaves out holes, which the guest then has to find.
    pub coarse: bool,
    /// Whether the guest finds the list at the start of its data pool, and not in its configuration.
    pub in_pool: bool,
}

/// A list of more bytes does not go into the configuration of a guest that can take it from its
/// memory: each 64 bytes of a configuration take two exits and the main loop.
const SHORT_LIST: usize = 24;
/// No request is made smaller than this for the sake of scattered data: a block of most file systems.
const SMALLEST_REQUEST: u64 = 4096;

impl InputFacts {
    /// What there is to know of `input`, as far as it matters for the run that is wanted.
    #[must_use]
    pub fn of(input: &InputFile, config: &Config) -> Self {
        let length = input.len();
        if config.sparse == Sparse::Never {
            return Self::of_data(length);
        }
        // Another guest need not know what may lie in its pool.
        let bounds = match config.guest {
            None => ListBounds::MEMORY,
            Some(_) => ListBounds::MESSAGE,
        };
        let holes = input.holes(bounds);
        Self {
            length,
            in_pool: config.guest.is_none() && holes.list.encoded_len() > SHORT_LIST,
            data: holes.list,
            coarse: holes.coarse,
        }
    }

    /// What is to lie at the start of the guest's data pool when it starts.
    #[must_use]
    pub fn pool(&self) -> &[u8] {
        match self.in_pool {
            true => self.data.bytes(),
            false => &[],
        }
    }

    /// How many bytes a request is to cover: where data is scattered, about as many as lie together,
    /// so that more requests find room.
    fn request_size(&self, config: &Config) -> u32 {
        let (usual, ranges) = (config.requests.size, self.data.ranges(self.length));
        // Whoever wants another size than the usual one gets it.
        if usual != DEFAULT_REQUEST_SIZE || !self.in_pool {
            return usual;
        }
        let (count, bytes) = ranges.fold((0, 0), |(count, bytes), range| {
            (count + 1, bytes + (range.end - range.start))
        });
        let sectors = [config.input_sector_size, config.output_sector_size];
        let sector = sectors.map(SectorSize::bytes).into_iter().max();
        let smallest = SMALLEST_REQUEST.max(sector.unwrap_or_default().into());
        let together = bytes.checked_div(count).unwrap_or(0).next_power_of_two();
        let size = u32::try_from(together.max(smallest));
        size.map_or(usual, |size| size.min(usual))
    }

    /// How many sectors of `sector_size` bytes the guest reports on, if it reports on each: those
    /// of a long hole are one step.
    #[must_use]
    pub fn reported_sectors(&self, sector_size: u64) -> u64 {
        let data = self.data.ranges(self.length);
        let data = data.map(|range| (range.end - range.start).div_ceil(sector_size));
        let holes = self.data.holes(self.length).map(|hole| {
            let sectors = (hole.end - hole.start).div_ceil(sector_size);
            if sectors > LONG_HOLE {
                SECTORS_A_REPORT
            } else {
                sectors
            }
        });
        data.chain(holes).sum()
    }

    /// So many bytes of data.
    #[must_use]
    pub const fn of_data(length: u64) -> Self {
        Self {
            length,
            data: DataList::everything(),
            coarse: false,
            in_pool: false,
        }
    }
}

/// With more progress reports than this, a console costs less than the serial port does: a console
/// takes thirty accesses to its registers and a thread, a report over the port as many bytes as it
/// has, of which each costs the host half a microsecond.
const MANY_REPORTS: u64 = 100;
/// The guest reports each so many sectors if its user does not say how many percent.
const SECTORS_A_REPORT: u64 = 10;
/// A hole of more sectors is reported as one step, if its user does not say how many percent.
const LONG_HOLE: u64 = 4096 * SECTORS_A_REPORT;

/// How the guest is to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports {
    progress: ProgressPercent,
    by_console: bool,
}

impl Reports {
    /// The reports of a copy of which `sectors` sectors are reported on: those of progress as `usual`
    /// if the user does not say. Nobody will see them if that is nothing; then the guest is asked for
    /// none, since each costs the wire.
    #[must_use]
    pub fn new(config: &Config, sectors: u64, usual: Option<ProgressPercent>) -> Self {
        let progress = usual.map_or(ProgressPercent::NEVER, |usual| {
            config.progress.unwrap_or(usual)
        });
        let by_console = match config.transport {
            Transport::Serial => false,
            Transport::Console => true,
            // Another guest need not know what a console is.
            Transport::Auto => config.guest.is_none() && count(progress, sectors) > MANY_REPORTS,
        };
        Self {
            progress,
            by_console,
        }
    }

    /// Whether they go through a virtio console.
    #[must_use]
    pub fn are_by_console(self) -> bool {
        self.by_console
    }
}

/// How many reports of progress the guest makes, but for one of the last sector.
fn count(progress: ProgressPercent, sectors: u64) -> u64 {
    match progress.percent() {
        0 => sectors.div_ceil(SECTORS_A_REPORT),
        percent => u64::from(100 / percent).min(sectors),
    }
}

/// The configuration for the guest, as a frame.
///
/// # Errors
///
/// None in practice: the list of data is bounded, and the rest has a fixed shape, which fits.
pub fn config_frame(
    config: &Config,
    reports: Reports,
    input: &InputFacts,
) -> Result<Vec<u8>, FrameError> {
    let device = |name: &str, size: u32| DeviceConfig {
        name: name.to_owned(),
        sector_size: size,
    };
    // What is read back is compared by its digest.
    let wants_digest = config.digest.is_some() || config.verify;
    let message = VmmConfig {
        devices: vec![
            device("input", config.input_sector_size.bytes()),
            device("output", config.output_sector_size.bytes()),
        ],
        progress_percent: reports.progress.percent().into(),
        protocol: match config.protocol {
            Protocol::Protobuf => guest_protocol::Protocol::Protobuf,
            Protocol::Text => guest_protocol::Protocol::Text,
        }
        .into(),
        request_size: input.request_size(config),
        queue_depth: config.requests.depth,
        transport: match reports.by_console {
            false => guest_protocol::Transport::Serial,
            true => guest_protocol::Transport::Console,
        }
        .into(),
        sparse: match config.sparse {
            // Holes that are not listed are found as zeros.
            Sparse::Auto if input.coarse => guest_protocol::Sparse::Always,
            Sparse::Auto => guest_protocol::Sparse::Auto,
            Sparse::Always => guest_protocol::Sparse::Always,
            Sparse::Never => guest_protocol::Sparse::Never,
        }
        .into(),
        data: match input.in_pool {
            true => Vec::new(),
            false => input.data.to_message(),
        },
        data_in_pool: input.pool().len().try_into().unwrap_or(u32::MAX),
        digest: match wants_digest {
            true => guest_protocol::Digest::Sha256,
            false => guest_protocol::Digest::None,
        }
        .into(),
        verify: config.verify,
        digest_length: if wants_digest { input.length } else { 0 },
    };
    configuration_frame(&message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use super::*;
    use crate::cli::{Command, parse};

    fn config(arguments: &[&str]) -> Box<Config> {
        let files = ["--input", "a", "--output", "b"];
        let arguments: Vec<_> = files.iter().chain(arguments).map(Into::into).collect();
        match parse(&arguments) {
            Ok(Command::Run(config)) => config,
            _ => panic!("these are arguments of a copy"),
        }
    }

    fn sent(config: &Config, reports: Reports, input: &InputFacts) -> VmmConfig {
        let frame = config_frame(config, reports, input).unwrap();
        <VmmConfig as guest_protocol::Message>::decode(&frame[2..]).unwrap()
    }

    #[test]
    fn holes_and_digests_are_told_as_far_as_they_are_wanted() {
        let facts = |coarse| InputFacts {
            length: 1 << 40,
            data: DataList::new(&[4096..8192]),
            coarse,
            in_pool: false,
        };
        let message = |arguments: &[&str], coarse| {
            let config = config(arguments);
            sent(
                &config,
                Reports::new(&config, 1, Some(ProgressPercent::default())),
                &facts(coarse),
            )
        };
        let plain = message(&[], false);
        assert_eq!(plain.sparse(), guest_protocol::Sparse::Auto);
        assert_eq!(plain.data, [1, 1]);
        assert_eq!(plain.digest(), guest_protocol::Digest::None);
        assert_eq!((plain.digest_length, plain.verify), (0, false));
        // Holes that are not listed have to be found.
        assert_eq!(message(&[], true).sparse(), guest_protocol::Sparse::Always);
        let never = message(&["--sparse", "never"], true);
        assert_eq!(never.sparse(), guest_protocol::Sparse::Never);
        for arguments in [&["--digest", "sha256"][..], &["--verify"]] {
            let message = message(arguments, false);
            assert_eq!(message.digest(), guest_protocol::Digest::Sha256);
            assert_eq!(message.digest_length, 1 << 40);
            assert_eq!(message.verify, arguments == ["--verify"]);
        }
    }

    #[test]
    fn a_list_in_the_pool_is_told_by_its_length_and_makes_requests_of_what_lies_together() {
        let facts = |piece: u64| InputFacts {
            length: 1 << 30,
            data: DataList::new(&[
                0..piece,
                1 << 20..(1 << 20) + piece,
                1 << 21..(1 << 21) + piece,
            ]),
            coarse: false,
            in_pool: true,
        };
        for (piece, arguments, size) in [
            (4096, &[][..], 4096),
            (4097, &[], 8192),
            (9 << 12, &[], 64 << 10),
            (1 << 19, &[], 128 << 10),
            (4096, &["--output-sector-size", "16K"], 16 << 10),
            (4096, &["--request-size", "1M"], 1 << 20),
        ] {
            let (config, facts) = (config(arguments), facts(piece));
            let message = sent(
                &config,
                Reports::new(&config, 1, Some(ProgressPercent::default())),
                &facts,
            );
            assert_eq!(message.request_size, size, "{piece}");
            assert_eq!(
                (message.data, message.data_in_pool),
                (vec![], u32::try_from(facts.pool().len()).unwrap())
            );
            assert_eq!(facts.pool(), facts.data.bytes());
        }
    }

    #[test]
    fn a_long_hole_is_one_report_and_a_short_one_many() {
        let reported = |data: &[std::ops::Range<u64>], length| {
            let facts = InputFacts {
                length,
                data: DataList::new(data),
                coarse: false,
                in_pool: false,
            };
            facts.reported_sectors(512)
        };
        assert_eq!(reported(&[], 8 << 40), 10);
        assert_eq!(reported(&[], 25_600), 50);
        assert_eq!(reported(&[4096..8192], 25_600), 50);
        assert_eq!(reported(&[1 << 40..(1 << 40) + 4096], 2 << 40), 28);
        assert_eq!(InputFacts::of_data(25_600).reported_sectors(512), 50);
    }

    #[test]
    fn many_reports_go_by_the_console_and_few_by_the_serial_port() {
        let by_console = |arguments: &[&str], sectors, wanted: bool| {
            let usual = wanted.then(ProgressPercent::default);
            Reports::new(&config(arguments), sectors, usual).are_by_console()
        };
        assert!(!by_console(&[], 1000, true));
        assert!(by_console(&[], 1001, true));
        assert!(by_console(&["--protocol", "text"], 1 << 30, true));
        assert!(!by_console(&[], 1 << 30, false), "nobody sees any");
        for percent in ["1", "50", "99", "100"] {
            assert!(!by_console(&["--progress-percent", percent], 1 << 30, true));
        }
        assert!(!by_console(&["--transport", "serial"], 1 << 30, true));
        assert!(by_console(&["--transport", "console"], 0, true));
        // Another guest need not know what a console is.
        assert!(!by_console(&["--guest", "g"], 1 << 30, true));
        assert!(by_console(
            &["--guest", "g", "--transport", "console"],
            0,
            true
        ));
    }

    #[test]
    fn the_configuration_says_where_and_how_often_to_report() {
        use guest_protocol::Transport::{Console, Serial};
        let usual = Some(ProgressPercent::default());
        let tenths = Some(ProgressPercent::TENTHS);
        for (usual, arguments, transport, percent) in [
            (usual, &[][..], Console, 0),
            (tenths, &[], Serial, 10),
            (tenths, &["-p", "0"], Console, 0),
            (None, &[], Serial, 100),
        ] {
            let config = config(arguments);
            let reports = Reports::new(&config, 5000, usual);
            let message = sent(&config, reports, &InputFacts::of_data(5000));
            assert_eq!(message.transport(), transport);
            assert_eq!(message.progress_percent, percent);
        }
    }
}
