//! Links the program as a guest.

fn main() {
    guest_link::program();
}
