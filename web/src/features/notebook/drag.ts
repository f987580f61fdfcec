/** What an entry of the thread travels as, when it is dragged. */
export const cellType = "application/x-caesarion-entry";
