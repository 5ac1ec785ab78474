"""probe.py NAME …: one way around the sandbox; prints `done`, or the name of the errno that stopped it."""
import ctypes, errno, mmap, os, pty, socket, sys, termios, fcntl, struct

libc = ctypes.CDLL(None, use_errno=True)
assert os.uname().machine == "x86_64", "the numbers below are those of x86-64"


def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def vsock():
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)


def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def raw6():
    socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def alg():
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)


def io_uring():
    call(425, 1, bytes(120))


def keyctl():
    call(250, 0, -3, 0)


def setns():
    """What is no namespace is EINVAL, before any right is looked at."""
    call(308, os.open("/dev/null", os.O_RDONLY), 0)


def bpf():
    call(321, 0, None, 0)


def userfaultfd():
    call(323, 1)


def perf():
    call(298, None, 0, -1, -1, 0)


def tiocsti():
    pid, master = pty.fork()
    if pid:
        try:
            said = b"".join(iter(lambda: os.read(master, 100), b""))
        except OSError:
            said = b""
        raise OSError(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "")
    try:
        fcntl.ioctl(0, termios.TIOCSTI, b"x")
        os._exit(0)
    except OSError as error:
        os._exit(error.errno)


def x32():
    call(0x40000000 + 39)


def i386():
    """getpid by int 0x80."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if answer < 0:
        raise OSError(-answer, "")


def abstract(name):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + name)


def shm(identifier):
    attached = libc.shmat
    attached.restype = ctypes.c_void_p
    if attached(int(identifier), None, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "")


def sem(identifier):
    """semctl(GETVAL)"""
    call(66, int(identifier), 0, 12)


def msg(identifier):
    """msgctl(IPC_STAT)"""
    call(71, int(identifier), 2, ctypes.create_string_buffer(256))


def mq(name):
    if libc.mq_open(name.encode(), os.O_RDWR) < 0:
        raise OSError(ctypes.get_errno(), "")


def tcp(host, port):
    """Connected, and heard from whoever is there."""
    with socket.create_connection((host, int(port)), timeout=20) as s:
        if s.recv(5) != b"hello":
            raise OSError(errno.ECONNRESET, "")


try:
    globals()[sys.argv[1]](*sys.argv[2:])
    print("done")
except OSError as error:
    print("done" if error.errno == 0 else errno.errorcode.get(error.errno, error))
