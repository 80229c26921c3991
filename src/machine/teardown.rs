//! Leaves taking the virtual machine apart to the kernel, behind the back of whoever waits for
//! this process.
//!
//! Whoever drops the last reference to a VM waits until the kernel has taken it apart, and that is
//! not before the end of a grace period (SRCU) that began when the VM's ioeventfds and coalesced
//! zones were registered. A small copy takes a fraction of that time. So the last reference lies
//! where a worker of the kernel drops it: in the queue of a socket that waits in that same queue.
//! No process can ever receive it from there, and once the process has closed the socket, the
//! kernel's garbage collector for sockets finds that out (unix(7), `SCM_RIGHTS`;
//! `net/unix/garbage.c`).
//!
//! From the start of a process that runs a vCPU once until its parent has waited for it, with Linux
//! 6.18 (250 Hz) on two processors, on a quiet machine, as the median of 60 turns:
//!
//! | the last reference is dropped by | ms |
//! | --- | --- |
//! | the process itself | 15.9 |
//! | the process itself, after a call that hurries the grace period (a memory slot, an ioeventfd less) | 7.9 |
//! | the process itself, for a VM without ioeventfds and coalesced zones | 2.4 |
//! | a child process that outlives this one | 2.3 |
//! | the context of an `io_uring` that has it as a fixed file | 2.2 |
//! | the garbage collector for sockets | 2.1 |
//!
//! A child is a process that nobody can wait for, and many containers forbid `io_uring`; sockets
//! are allowed nearly everywhere. Kernels before 6.9 collect while the socket is closed, and then
//! the end costs what it costs anyway.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Holds references to a VM until it is dropped; then the kernel drops them.
///
/// It must be dropped after the [`VmFd`] and the [`VcpuFd`]: the last reference is what counts. At
/// the end of a process the order does not matter, since the kernel closes all descriptors before
/// it takes anything apart. All that dropping it takes is `close`.
#[derive(Debug)]
pub(super) struct Teardown {
    /// The socket in whose queue the references lie, and the other end of it. `None` where the
    /// surroundings refuse sockets: whoever waits for the end then waits longer, and nothing else
    /// is different.
    _sockets: Option<(UnixStream, UnixStream)>,
}

impl Teardown {
    /// Takes references to a VM, whose vCPU is `vcpu`. Every vCPU is a reference to its VM.
    pub(super) fn leave_to_kernel(vm: &VmFd, vcpu: &VcpuFd) -> Self {
        Self {
            _sockets: enqueue([vm.as_raw_fd(), vcpu.as_raw_fd()]).ok(),
        }
    }
}

/// Puts `descriptors` and a socket into the queue of that socket. Returns the socket and its peer.
fn enqueue(descriptors: [RawFd; 2]) -> io::Result<(UnixStream, UnixStream)> {
    let (queue, peer) = UnixStream::pair()?;
    let [vm, vcpu] = descriptors;
    // One byte is sent, since descriptors travel with data only.
    peer.send_with_fds(&[&[0_u8][..]], &[vm, vcpu, queue.as_raw_fd()])?;
    Ok((queue, peer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Read;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn the_kernel_drops_what_it_was_given_once_the_process_has_closed_it() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let sockets = enqueue([writer.as_raw_fd(), null.as_raw_fd()]).unwrap();
        drop(writer);
        let wait = |seconds| {
            let limit = Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&limit)).unwrap()
        };
        assert_eq!(wait(0), 0, "the queue holds the pipe's writing end");
        drop(sockets);
        assert_eq!(wait(30), 1, "nothing holds it any more");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
