// Scales images down that are too large to be sent together.

const BESIDE_BYTES = 2048; // of each image in a request: its name, its headers
const SIDE_PX = 1600; // the network sees a few hundred pixels a side
const QUALITY = 0.95;

/**
 * The images as they are if they fit in one request, else scaled down.
 * @param {File[]} images
 * @param {number} maxBytes of a request
 * @param {(done: number) => void} onProgress told how many are scaled
 * @returns {Promise<File[]>}
 */
export async function fitting(images, maxBytes, onProgress) {
  const bytes = images.reduce((sum, image) => sum + image.size + BESIDE_BYTES, 0);
  if (bytes <= maxBytes) return images;
  const files = [];
  for (const image of images) {
    onProgress(files.length);
    files.push(await shrunk(image)); // one after the other: a decoded photo is large
  }
  return files;
}

/** @param {File} image @returns {Promise<File>} */
async function shrunk(image) {
  const bitmap = await createImageBitmap(image).catch(() => null); // upright, as the server turns it
  if (bitmap === null) return image; // the server says what is wrong with it
  const scale = Math.min(1, SIDE_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return blob ? new File([blob], image.name, { type: "image/jpeg" }) : image;
}
