# SPDX-License-Identifier: Apache-2.0
"""The perception node: camera images in; depth, pose, features and points out, by one model for all cameras.

    omnistream-up perception --ros-args -p weights:=... -p image_topic:=/camera/image_raw
    ros2 run omnistream_perception perception_node --ros-args -p weights:=... -p image_topic:=/camera/image_raw

All topics, services and messages: docs/reference.md. Several cameras: -p cameras:="[front, wrist]"; the parameters of
each are then called cameras.front.image_topic and so on.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError, OmniStreamError
from omnistream.io.run_log import RunLog, circumstances
from omnistream.stream.gate import DropReason, ResetReason
from omnistream_msgs.msg import StreamStatus
from omnistream_msgs.srv import LoadWeights, SetWindow
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS, ManagedNode, State
from omnistream_ros.parameters import help_text
from omnistream_ros.qos import qos_profile
from omnistream_ros.run_log import open_run_log
from omnistream_ros.running import run
from omnistream_ros.worker import Worker

from . import model as models
from .camera import Arrival, Camera
from .memory import MIB, used_gpu_bytes
from .parameters import CAMERA, NODE, CameraSettings, camera_specs, shared_bases
from .status import engine_name, status_message
from .transforms import StaticTransforms, TransformPublisher, tf_available

WATCH_PERIOD = 0.1
"""Seconds between two looks at whether a camera has gone silent."""
CALL_TIMEOUT = 30.0
"""Seconds a service waits for the image in hand."""


class PerceptionNode(ManagedNode):
    """The lifecycle and the services. What happens to an image is in `camera`, what comes out in `outputs`.

    Args:
        name: node name; remapped as usual.
        keywords: for rclpy's Node (context, namespace, parameter_overrides, ...).
    """

    def __init__(self, name: str = "perception", **keywords: Any) -> None:
        super().__init__(name, NODE, **keywords)
        self.names: list[str] = self.parameters["cameras"] or [""]
        for camera in self.names:
            self.parameters.declare(camera_specs(camera))
        self._loaded: models.LoadedModel | None = None
        self._settings: models.ModelSettings | None = None
        self._cameras: dict[str, Camera] = {}
        self._worker: Worker[Arrival] = Worker(
            "perception",
            lambda camera, arrivals: self._cameras[camera].process(arrivals),
            evicted=lambda camera, arrival: self._cameras[camera].unused(DropReason.SUPERSEDED, arrival),
            stopped=lambda camera, arrival: self._cameras[camera].unused(DropReason.INACTIVE, arrival),
        )
        self._static_transforms: StaticTransforms | None = None
        self._transform_publisher: TransformPublisher | None = None
        self._log: RunLog | None = None
        self._control = threading.RLock()  # between transitions and services, some of which have a thread of their own
        self._make_status()
        self._make_services()
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1))
        self._jump = self.get_clock().create_jump_callback(backwards, post_callback=self._on_clock_jump)

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        """Loads the model, allocates and warms up; creates the topics that the checkpoint can fill."""
        with self._control:
            parameters = self.parameters
            self._settings = models.ModelSettings.read(parameters)
            settings = [CameraSettings.read(parameters, name) for name in self.names]
            shared = shared_bases(settings)
            if shared and parameters["publish_tf"]:
                raise ConfigError(
                    f"publish_tf is on and several cameras have base_frame {', '.join(sorted(shared))}, which would "
                    "get a parent from each; set base_frame of one of them, or publish_tf false"
                )
            self._loaded = models.load(parameters["weights"], parameters["policy"], self.names, self._settings)
            self.get_logger().info(f"model: {self._loaded.description}; memory: {self._loaded.memory}")
            self._log = self._open_log(settings)
            if any(camera.base_frame and camera.T_base_camera is None for camera in settings):
                self._static_transforms = StaticTransforms(self)
            if tf_available() or parameters["publish_tf"]:
                self._transform_publisher = TransformPublisher(self)
            for camera in settings:
                self._cameras[camera.name] = Camera(
                    self,
                    camera,
                    self._loaded.sessions[camera.name],
                    self._worker.put,
                    self.raise_fault,
                    self._status_signal.trigger,
                    self._static_transforms,
                    None if camera.base_frame in shared else self._transform_publisher,
                    self._log,
                )
            self._say_limits()

    def activate(self) -> None:
        """Images are consumed from now on."""
        self._worker.start()
        for camera in self._cameras.values():
            camera.subscribe()

    def deactivate(self) -> None:
        """No more images; waits for the one in hand. The streams keep their memory."""
        for camera in self._cameras.values():
            camera.unsubscribe()
        self._worker.stop()

    def cleanup(self) -> None:
        """Frees the model and removes the topics."""
        with self._control:
            for camera in self._cameras.values():
                camera.destroy()
            if self._log is not None:
                self._log.close(hash={name: camera.stream.hash.hexdigest() for name, camera in self._cameras.items()})
            self._log = None
            self._cameras.clear()
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = None
            for transforms in (self._static_transforms, self._transform_publisher):
                if transforms is not None:
                    transforms.destroy()
            self._static_transforms = self._transform_publisher = None

    def _open_log(self, settings: Sequence[CameraSettings]) -> RunLog | None:
        assert self._loaded is not None
        session = self._loaded.session
        header = {
            "topics": {camera.name: self.resolve_topic_name(camera.image_topic) for camera in settings},
            "model": session.model_hash,
            "backbone": session.backbone_hash,
            "engine": str(session.engine.spec),
            "threads": torch.get_num_threads(),
        }
        return open_run_log(self, header | circumstances())

    def state_changed(self) -> None:
        """Tells everybody."""
        self._publish_status()
        self._diagnostics.publish()

    # ---------------------------------------------------------------- services

    def _make_services(self) -> None:
        # These may take seconds with a large model: images, parameters and status go on meanwhile.
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        self.create_service(SetWindow, "~/set_window", self._on_set_window, callback_group=group)
        self.create_service(LoadWeights, "~/load_weights", self._on_load_weights, callback_group=group)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def reset() -> str:
            for camera in self._cameras.values():
                camera.reset(ResetReason.REQUESTED)
            return f"{len(self._cameras)} stream(s) reset"

        response.success, response.message = self._controlled(lambda: self._worker.call(reset, CALL_TIMEOUT))
        return response

    def _on_set_window(self, request: SetWindow.Request, response: SetWindow.Response) -> SetWindow.Response:
        def change() -> str:
            assert self._loaded is not None and self._settings is not None  # see _controlled
            old = self._loaded
            self._adopt(models.with_policy(old, request.policy, self._settings), ResetReason.WINDOW_CHANGED)
            old.close(successor=self._loaded)
            self.parameters.overwrite("policy", request.policy)
            return f"policy {self._loaded.session.policy}; {self._loaded.memory}"

        response.success, response.message = self._controlled(change)
        return response

    def _on_load_weights(self, request: LoadWeights.Request, response: LoadWeights.Response) -> LoadWeights.Response:
        def change() -> str:
            assert self._loaded is not None and self._settings is not None
            old = self._loaded
            new = models.load(request.path, str(old.session.policy), self.names, self._settings)
            self._adopt(new, ResetReason.MODEL_LOADED)
            old.close()
            self.parameters.overwrite("weights", request.path)
            self._say_limits()
            return f"loaded {new.description}; {new.memory}"

        with self._control:  # a cleanup in between would take the model away
            response.success, response.message = self._controlled(change)
            response.model_hash = "" if self._loaded is None else self._loaded.session.model_hash
        return response

    def _controlled(self, change: Callable[[], str]) -> tuple[bool, str]:
        """Runs `change` while no transition does, and turns whatever it raises into a refusal: the stream goes on."""
        with self._control:
            if self._loaded is None:
                return False, f"the node is {self.state}; configure it first"
            try:
                message = change()
            except (OmniStreamError, OSError, TimeoutError) as error:
                self.get_logger().warning(f"refused: {error}")
                return False, str(error) or type(error).__name__
            except Exception as error:  # a bug, or a library's own word for "no memory": never the end of the stream
                self.get_logger().error(f"refused:\n{traceback.format_exc()}")
                return False, f"{type(error).__name__}: {error}"
        self._publish_status()
        return True, message

    def _adopt(self, new: models.LoadedModel, reason: ResetReason) -> None:
        """All cameras go on with the streams of `new`, between two images."""

        def swap() -> None:
            for name, camera in self._cameras.items():
                camera.replace_session(new.sessions[name], reason)
            self._loaded = new

        self._worker.call(swap, CALL_TIMEOUT)

    # ---------------------------------------------------------------- status and diagnostics

    def _make_status(self) -> None:
        self._status_publishers = {
            name: self.create_publisher(
                StreamStatus, f"~/{name}/status" if name else "~/status", qos_profile("latched")
            )
            for name in self.names
        }
        self._stale: dict[str, bool] = {}
        self._status_signal = self.create_guard_condition(self._publish_status)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1 / self.parameters["status_rate"], self._publish_status, clock=steady)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)
        self._diagnostics = Diagnostics(self, hardware_id=self.get_name())
        self._diagnostics.add("model", self._model_report)
        for name in self.names:
            suffix = f" {name}" if name else ""
            self._diagnostics.add(f"input{suffix}", partial(self._input_report, name))
            self._diagnostics.add(f"stream{suffix}", partial(self._stream_report, name))

    def _publish_status(self) -> None:
        now = self.get_clock().now().to_msg()
        for name, publisher in self._status_publishers.items():
            camera = self._cameras.get(name)
            state, detail = self._stream_state(camera)
            stream = None if camera is None else (camera.monitor, camera.session, camera.motion.segment)
            publisher.publish(status_message(state, detail, name, now, stream))

    def _stream_state(self, camera: Camera | None) -> tuple[int, str]:
        if self.failed:
            return StreamStatus.STATE_ERROR, self.fault
        if camera is None or self._loaded is None:
            return StreamStatus.STATE_UNCONFIGURED, self.fault or "not configured"
        if self.state is not State.ACTIVE:
            return StreamStatus.STATE_INACTIVE, self.fault or self._loaded.description
        if self._is_stale(camera):
            silence = camera.monitor.silence()
            return StreamStatus.STATE_STALE, f"no image on {camera.topic} for {silence:.1f} s"
        detail = [self._loaded.description, camera.limits, camera.missing]
        return StreamStatus.STATE_ACTIVE, "; ".join(part for part in detail if part)

    def _is_stale(self, camera: Camera) -> bool:
        return camera.monitor.silence() > self.parameters["stale_after"]

    def _watch(self) -> None:
        """A camera that is lost or back is told of at once."""
        if self.state is not State.ACTIVE:
            return
        stale = {name: self._is_stale(camera) for name, camera in self._cameras.items()}
        if stale != self._stale:
            for name, camera in self._cameras.items():
                if stale[name] != self._stale.get(name, False):
                    self._say_stale(camera, stale[name])
            self._stale = stale
            self.state_changed()

    def _say_stale(self, camera: Camera, stale: bool) -> None:
        if stale:  # two lines of code: rclpy ties a severity to the line that logs
            self.get_logger().error(f"no images on {camera.topic}")
        else:
            self.get_logger().info(f"images on {camera.topic} are back")

    def _model_report(self) -> Report:
        if self.fault:
            return Report(Level.ERROR, self.fault, {"state": str(self.state)})
        if self._loaded is None:
            return Report(Level.WARN, "not configured", {"state": str(self.state)})
        session = self._loaded.session
        values = {
            "state": str(self.state),
            "weights": self._loaded.description,
            "model_hash": session.model_hash,
            "scale": session.scale,
            "engine": engine_name(session),
            "device": session.engine.spec.device,
            "policy": str(session.policy),
            "memory": self._loaded.memory,
        }
        if (used := used_gpu_bytes(session.engine.spec.device)) is not None:
            values["gpu_memory_mib"] = f"{used / MIB:.0f}"
        return Report.ok(str(self.state), **values)

    def _input_report(self, name: str) -> Report:
        camera = self._cameras.get(name)
        if camera is None:
            return Report(Level.STALE, "not configured")
        return camera.monitor.input_report(self.parameters, camera.topic, self.state is State.ACTIVE)

    def _stream_report(self, name: str) -> Report:
        camera = self._cameras.get(name)
        if camera is None:
            return Report(Level.STALE, "not configured")
        session = camera.session
        return camera.monitor.stream_report(
            self.parameters,
            self.state is State.ACTIVE,
            frames_seen=session.frames_seen,
            cache_filled=f"{session.filled} of {session.slots}",
            cache_bytes=session.nbytes,
            segment=camera.motion.segment,
            last_reset=str(camera.monitor.reset_reason),
        )

    def _say_limits(self) -> None:
        limits = {camera.limits for camera in self._cameras.values() if camera.limits}
        for sentence in limits:
            self.get_logger().warning(sentence)

    # ---------------------------------------------------------------- events

    def _on_clock_jump(self, _jump: TimeJump) -> None:
        """The ROS clock went back: a simulation was restarted, or a bag played again."""
        if self.state is not State.ACTIVE:
            return
        self.get_logger().info("the clock jumped back: all streams are reset")
        for camera in list(self._cameras.values()):
            self._worker.post(partial(camera.reset, ResetReason.CLOCK_JUMP))


def main(args: Sequence[str] | None = None) -> int:
    """The executable; returns its exit code."""
    parameters = (*LIFECYCLE_PARAMETERS, *NODE, *CAMERA)
    return run(PerceptionNode, args, threads=2, help_text=help_text(__doc__ or "", parameters))


if __name__ == "__main__":
    sys.exit(main())
