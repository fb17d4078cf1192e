# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile for one machine: images arrive whole between two processes, no port is open to others.

DDS listens on ports that follow from the domain (discovery and data): those are on 127.0.0.1. Besides, Fast DDS holds
the sockets that it sends from, on ports of the system's choice and of any address; it announces them to nobody.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ros

IMAGES = 60

LISTENING = """
import os, re, socket, struct, sys
import rclpy
rclpy.init()
node = rclpy.create_node("listening")
links = []
for number in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass  # the folder's own descriptor
ours = {link[8:-1] for link in links if link.startswith("socket:[")}
first = 7400 + 250 * int(os.environ["ROS_DOMAIN_ID"])
for line in open("/proc/self/net/udp").read().splitlines()[1:]:
    words = line.split()
    address, port = words[1].split(":")
    if words[9] in ours and first <= int(port, 16) < first + 250:
        print(socket.inet_ntoa(struct.pack("<I", int(address, 16))))
"""

RECEIVER = f"""
import time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("receiver")
sizes = []
node.create_subscription(Image, "image", lambda message: sizes.append(len(message.data)), qos_profile_sensor_data)
print("ready", flush=True)
end = time.monotonic() + 30
while len(sizes) < {IMAGES} and time.monotonic() < end:
    before = len(sizes)
    rclpy.spin_once(node, timeout_sec=2.0)
    if before == len(sizes) > 0:
        break  # two seconds of silence: the rest is lost
print(len(sizes), set(sizes) == {{640 * 480 * 3}})
"""

SENDER = f"""
import array, time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
while publisher.get_subscription_count() == 0:
    time.sleep(0.02)
time.sleep(0.2)
message = Image(height=480, width=640, step=1920, encoding="rgb8", data=array.array("B", bytes(640 * 480 * 3)))
for _ in range({IMAGES}):
    publisher.publish(message)
    time.sleep(1 / 30)
time.sleep(0.5)
"""


def python(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_the_discovery_and_data_ports_are_on_loopback_only(ros_domain: int) -> None:
    output, _ = python(LISTENING).communicate(timeout=30)
    addresses = output.split()
    assert addresses, "no DDS port found"
    assert set(addresses) == {"127.0.0.1"}


def test_no_image_is_lost_between_processes(ros_domain: int) -> None:
    """640x480 rgb8 at 30 Hz, best effort. With the defaults of Fast DDS nine of ten are lost."""
    receiver = python(RECEIVER)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    sender = python(SENDER)
    try:
        output, _ = receiver.communicate(timeout=60)
    finally:
        sender.kill()
        sender.communicate()
        receiver.kill()
    assert output == f"{IMAGES} True\n"
