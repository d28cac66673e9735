// The camera of this computer or phone: single images, or one after the other.

import { button, element, notice, replace } from "./elements.js";

const QUALITY = 0.92;

/**
 * The camera, open until `close`.
 * @param {object} options
 * @param {(image: File) => Promise<void>} options.onImage inspects an image; the next one is taken when it is done
 * @param {() => void} options.onClose
 */
export function cameraView({ onImage, onClose }) {
  const video = element("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "Camera" });
  const message = element("div", {});
  const one = button("Inspect one image", () => inspect(), { class: "main", disabled: true });
  const always = element("input", { type: "checkbox", disabled: true, onchange: look });
  const devices = element("select", { "aria-label": "Camera", hidden: true, onchange: () => open(devices.value) });
  const shown = element(
    "section",
    { class: "card stack camera", "aria-label": "Camera" },
    video,
    message,
    element("div", { class: "row" }, one, element("label", { class: "check" }, always, "Look continuously"),
      button("Close the camera", close, { class: "quiet" })),
    devices,
  );
  /** @type {MediaStream | null} */
  let stream = null;
  let isClosed = false;
  let isBusy = false;
  let count = 0;

  async function open(deviceId = "") {
    stop();
    const size = { width: { ideal: 1280 }, height: { ideal: 960 } };
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: "environment" } };
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
      const opened = await navigator.mediaDevices.getUserMedia({ video: { ...size, ...which } });
      if (isClosed) return opened.getTracks().forEach((track) => track.stop());
      stream = opened;
      video.srcObject = opened;
      await video.play();
      one.disabled = always.disabled = false;
      await listDevices();
    } catch (error) {
      if (!isClosed) replace(message, notice("bad", cameraProblem(error)));
    }
  }

  async function listDevices() {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
    const current = stream?.getVideoTracks()[0]?.getSettings().deviceId;
    const options = cameras.map((camera, index) =>
      element("option", { value: camera.deviceId, selected: camera.deviceId === current }, camera.label || `Camera ${index + 1}`));
    replace(devices, ...options);
    devices.hidden = cameras.length < 2;
  }

  async function inspect() {
    if (isBusy || isClosed || !video.videoWidth) return;
    isBusy = true;
    one.disabled = true;
    try {
      await onImage(await imageOf(video, `camera-${(count += 1)}.jpg`));
    } finally {
      isBusy = false;
      one.disabled = always.checked;
    }
  }

  /** One image at a time, and always the newest: while one is inspected, none is taken. */
  async function look() {
    one.disabled = always.checked;
    while (always.checked && !isClosed) {
      if (!document.hidden) await inspect();
      await new Promise((resolve) => setTimeout(resolve, document.hidden ? 500 : 50));
    }
  }

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
  }

  function close() {
    isClosed = true;
    stop();
    shown.remove();
    onClose();
  }

  void open();
  return { element: shown, close, isLooking: () => always.checked };
}

/** @param {HTMLVideoElement} video @param {string} name @returns {Promise<File>} */
async function imageOf(video, name) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return new File([/** @type {Blob} */ (blob)], name, { type: "image/jpeg" });
}

function cameraProblem(error) {
  switch (error.name) {
    case "SecurityError":
      return "Browsers open the camera only on pages with HTTPS, or on localhost. On a phone, use “Take a photo”.";
    case "NotAllowedError":
      return "The camera is not allowed for this page. Allow it in the settings of your browser, then open it again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "There is no camera on this computer.";
    case "NotReadableError":
      return "Another program uses the camera. Close it, then open the camera again.";
    default:
      return `The camera cannot be opened (${error.name}).`;
  }
}
