"""A line to another network namespace on which every packet is under way for some milliseconds, for kernels without netem.

usage: delay.py NAMESPACE DEVICE MILLISECONDS

A tun device of that name here and in the namespace; a packet that enters one leaves the other that much later. Prints `ready`.
"""

import collections
import ctypes
import errno
import fcntl
import os
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000  # setns(2)
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
LARGEST = 65535  # bytes of an IPv4 packet


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def main(namespace, device, milliseconds):
    # A line does not wait for a processor.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    here = tun(device)
    with open(f"/run/netns/{namespace}") as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
            sys.exit(f"enter namespace {namespace}: {os.strerror(ctypes.get_errno())}")
    far = tun(device)
    print("ready", flush=True)
    delay, under_way = milliseconds / 1000, collections.deque()
    while True:
        wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        for fd in select.select([here, far], [], [], wait)[0]:
            packet = os.read(fd, LARGEST)
            under_way.append((time.monotonic() + delay, far if fd == here else here, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, to, packet = under_way.popleft()
            try:
                os.write(to, packet)
            except OSError as error:
                if error.errno != errno.EIO:  # That end is not up yet.
                    raise


main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
